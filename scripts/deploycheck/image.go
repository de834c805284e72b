package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/patternmatcher/ignorefile"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

// noRegistry stands for all base images: there is nothing to be known of them here but
// that they would be an ordinary Linux.
type noRegistry struct{}

// ResolveImageConfig tells of an image without settings of its own.
func (noRegistry) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"},"config":{"Env":["PATH=/usr/local/go/bin:/usr/bin:/bin"]}}`)
	return ref, digest.FromBytes(config), config, nil
}

// ResolveSourceMetadata is the same, as BuildKit asks for it.
func (n noRegistry) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, _ sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	_, dgst, config, err := n.ResolveImageConfig(ctx, op.Identifier, sourceresolver.Opt{})
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: dgst, Config: config}}, err
}

// dockerfiles compiles each file as a build would, with all of the linter's rules.
// A warning is an error.
func dockerfiles(ctx context.Context, names []string, out io.Writer) error {
	findings := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		platform := platforms.DefaultSpec()
		source := llb.NewSourceMap(nil, name, "Dockerfile", text)
		source.Definition = &llb.Definition{} // where a build would have got the file from
		opt := dockerfile2llb.ConvertOpt{
			SourceMap:      source,
			TargetPlatform: &platform,
			MetaResolver:   noRegistry{},
		}
		opt.BuildPlatforms = append(opt.BuildPlatforms, platform)
		results, err := dockerfile2llb.DockerfileLint(ctx, text, opt)
		if err != nil {
			return err
		}
		if results.Error != nil {
			return fmt.Errorf("%s: %s", name, results.Error.Message)
		}
		for _, w := range results.Warnings {
			line := int32(0)
			if len(w.Location.GetRanges()) > 0 {
				line = w.Location.GetRanges()[0].GetStart().GetLine()
			}
			fmt.Fprintf(out, "%s:%d: %s: %s\n", name, line, w.RuleName, w.Detail)
		}
		findings += len(results.Warnings)
	}
	if findings > 0 {
		return fmt.Errorf("%d findings", findings)
	}
	return nil
}

// runs prints what the RUN instructions of a stage tell the shell.
func runs(name, stage string, out io.Writer) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return err
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return err
	}
	for _, s := range stages {
		if s.Name != stage {
			continue
		}
		for _, c := range s.Commands {
			if r, ok := c.(*instructions.RunCommand); ok {
				fmt.Fprintln(out, strings.Join(r.CmdLine, " "))
			}
		}
		return nil
	}
	return fmt.Errorf("%s has no stage %s", name, stage)
}

// buildContext copies the files of a folder that a build would see.
func buildContext(ctx context.Context, from, to string) error {
	f, err := os.Open(filepath.Join(from, ".dockerignore"))
	if err != nil {
		return err
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		return err
	}
	all, err := fsutil.NewFS(from)
	if err != nil {
		return err
	}
	seen, err := fsutil.NewFilterFS(all, &fsutil.FilterOpt{ExcludePatterns: patterns})
	if err != nil {
		return err
	}
	return seen.Walk(ctx, "", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return copyFile(seen, path, filepath.Join(to, path))
	})
}

func copyFile(from fsutil.FS, path, to string) error {
	r, err := from.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	return err
}
