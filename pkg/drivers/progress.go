package drivers

import "github.com/osds-io/osds/pkg/model"

// InProgress is the answer of a call that has not come to the end of long work:
// of what there is to be done, done is done. What names it in the past tense
// (cleared, copied); object is what it is done to ("volume x"). The same call
// again goes on.
//
// For who does not know of progress it is an unknown outcome, which is tried
// again, too.
func InProgress(object, what string, done, total model.Bytes) *model.Error {
	p := &model.Progress{What: what, Done: done, Total: total}
	e := model.Errorf(model.KindUnknownOutcome, "%s: %s; the rest is for the next call", object, p)
	e.Progress = p
	return e
}
