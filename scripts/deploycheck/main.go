// Command deploycheck holds the deployment files against the code that will read them
// one day: BuildKit's compiler, Compose's loader, Kubernetes' types. It is a module of its
// own, so that none of these is the product's. scripts/check-deploy.sh runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

const usage = `usage: deploycheck COMMAND …
  dockerfile FILE…        compile each, and print what the linter has to say
  runs FILE STAGE         the shell lines of a stage's RUN instructions, one a line
  context FOLDER TO       copy what .dockerignore lets through, as a build would
  compose FILE            load it as Compose does, and print the result as JSON
  kubernetes              decode the manifests on standard input, and print their names`

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "deploycheck:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch {
	case command == "dockerfile" && len(args) > 0:
		return dockerfiles(ctx, args, out)
	case command == "runs" && len(args) == 2:
		return runs(args[0], args[1], out)
	case command == "context" && len(args) == 2:
		return buildContext(ctx, args[0], args[1])
	case command == "compose" && len(args) == 1:
		return composition(ctx, args[0], out)
	case command == "kubernetes" && len(args) == 0:
		return manifests(in, out)
	}
	return errors.New(usage)
}
