package main

import (
	"encoding/json"
	"fmt"
	"runtime"
)

// version is set by the build.
var version = "dev"

type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints the version.
func (c versionCmd) Run(s streams) error {
	if c.JSON {
		return json.NewEncoder(s.out).Encode(map[string]string{"version": version, "go": runtime.Version()})
	}
	_, err := fmt.Fprintf(s.out, "payments %s (%s)\n", version, runtime.Version())
	return err
}
