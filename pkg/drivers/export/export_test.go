package export

import (
	"testing"

	"github.com/sirupsen/logrus"
)

// testLog writes to a test's log.
func testLog(t testing.TB) logrus.FieldLogger {
	l := logrus.New()
	l.SetLevel(logrus.DebugLevel)
	l.SetOutput(t.Output())
	return l
}
