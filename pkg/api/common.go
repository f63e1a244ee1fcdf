package api

import (
	"strings"

	"github.com/osds-io/osds/pkg/db"
	"github.com/osds-io/osds/pkg/model"
)

// newID gives the id of what is created: the client's, if it is one, or a new
// one.
func (c *call) newID(given string) (string, error) {
	switch {
	case given == "":
		return model.NewID(), nil
	case !model.ValidUUID(given):
		return "", model.Invalid("id", "id %q is not a UUID: leave it out, or give one such as %s", shorten(given), model.NewID())
	case given != strings.ToLower(given):
		return "", model.Invalid("id", "id %s must be written in lower case", given)
	}
	for _, res := range []model.Resource{model.ResVolume, model.ResSnapshot, model.ResAttachment, model.ResDevice} {
		if _, ok := c.store().Debts.Get(model.DebtID(res, given)); ok {
			return "", &model.Error{Kind: model.KindExists, Field: "id", Message: "the id " + given + " is still to be removed from a backend whose dock is gone; use another"}
		}
	}
	return given, nil
}

// createRecord adds a new record to a transaction. Its id must not be one that is still
// owed on a backend: settling the debt would remove the new object.
func createRecord(t *db.Txn, r model.Record) {
	t.Create(r).If(db.Key(model.ResDebt, model.DebtID(r.Res(), r.Base().ID)), db.Absent)
	if r.Res() == model.ResAttachment {
		t.If(db.Key(model.ResDebt, model.DebtID(model.ResDevice, r.Base().ID)), db.Absent)
	}
}

// idIsFree refuses an id that any tenant's record has, and says no more than
// that. The transaction's guard decides; this is for the message.
func idIsFree[T any, P interface {
	*T
	model.Record
}](t *db.Table[T, P], what, id string) error {
	if _, ok := t.Get(id); ok {
		return &model.Error{Kind: model.KindExists, Field: "id", Message: "a " + what + " with the id " + id + " exists already"}
	}
	return nil
}

// nameAndDescription takes the two fields that every PUT may change. An empty
// description clears it.
func (p *patch) nameAndDescription(m *model.Meta, validName func(string) error) error {
	name, err := p.text("name")
	if err != nil {
		return err
	}
	if name != nil {
		if err := validName(*name); err != nil {
			return err
		}
		m.Name = *name
	}
	desc, err := p.text("description")
	if err != nil {
		return err
	}
	if desc != nil {
		if err := model.ValidateDescription(*desc); err != nil {
			return err
		}
		m.Description = *desc
	}
	return nil
}
