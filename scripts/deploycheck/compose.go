package main

import (
	"context"
	"encoding/json"
	"io"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
)

// composition loads a file as `docker compose` does: its schema, its anchors, what its
// services depend on and are given. Files of secrets need not be there.
func composition(ctx context.Context, name string, out io.Writer) error {
	options, err := cli.NewProjectOptions([]string{name},
		cli.WithWorkingDirectory(filepath.Dir(name)), cli.WithResolvedPaths(false), cli.WithEnv(nil))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(project)
}
