package main

import (
	"context"
	"errors"

	"github.com/oncepay/oncepay/test/faults/report"
)

func (c *campaign) hunt(context.Context, *ground) ([]report.Mutant, error) {
	return nil, errors.New("not yet")
}
