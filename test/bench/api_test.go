package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The API that is measured is put together here, as cmd/payments puts together the
// product's. These tests notice when the two have grown apart.

const (
	productsFiles = "../../cmd/payments"
	ourFile       = "api.go"
)

// parsed are the files of a folder that a normal build has, or one file.
func parsed(t *testing.T, path string) (files []*ast.File) {
	t.Helper()
	paths := []string{path}
	if !strings.HasSuffix(path, ".go") {
		var err error
		if paths, err = filepath.Glob(filepath.Join(path, "*.go")); err != nil || len(paths) == 0 {
			t.Fatalf("no files in %s: %v", path, err)
		}
	}
	tagged := regexp.MustCompile(`(?m)^//go:build faultpoints`)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "_test.go") || tagged.Match(text) {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// constants are their expressions as they are written.
func constants(files []*ast.File) map[string]string {
	all := map[string]string{}
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				v, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for i, name := range v.Names {
					if i < len(v.Values) {
						all[name.Name] = types.ExprString(v.Values[i])
					}
				}
			}
		}
	}
	return all
}

// loops are the names of the worker loops that are started.
func loops(files []*ast.File) (names []string) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CompositeLit)
			if !ok || c.Type == nil || types.ExprString(c.Type) != "worker.Loop" {
				return true
			}
			for _, e := range c.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && types.ExprString(kv.Key) == "Name" {
					names = append(names, types.ExprString(kv.Value))
				}
			}
			return true
		})
	}
	slices.Sort(names)
	return names
}

// flagDefaults are the defaults of the flags in a struct, by field.
func flagDefaults(files []*ast.File, structName string) map[string]string {
	all := map[string]string{}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != structName {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					if field.Tag != nil && len(field.Names) == 1 {
						all[field.Names[0].Name] = reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("default")
					}
				}
			}
			return false
		})
	}
	return all
}

func TestMeasuredAPIHasTheProductsLoopsAndTimes(t *testing.T) {
	t.Parallel()
	product, ours := parsed(t, productsFiles), parsed(t, ourFile)
	if got, want := loops(ours), loops(product); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("its loops are %v, the product's %v", got, want)
	}
	their, our := constants(product), constants(ours)
	for _, name := range []string{"directoryEvery", "directoryMaxAge", "usesEvery", "arrivalsEvery", "purgeEvery", "requestTimeout", "answerMargin"} {
		if our[name] == "" || our[name] != their[name] {
			t.Errorf("%s is %q here and %q in the product", name, our[name], their[name])
		}
	}
	for ourName, theirName := range map[string]string{"providerTimeout": "defaultProviderTimeout", "leaseOverTimeout": "leaseOverTimeout", "settle": "minSettle"} {
		if our[ourName] == "" || our[ourName] != their[theirName] {
			t.Errorf("%s is %q here, and %s in the product is %q", ourName, our[ourName], theirName, their[theirName])
		}
	}
	defaults := flagDefaults(product, "serverFlags")
	for field, here := range map[string]any{"RecoveryInterval": recoveryEvery, "Retention": retention, "MaxInFlight": maxInFlight} {
		if !sameDefault(defaults[field], here) {
			t.Errorf("the product's default of %s is %q, and here it is %v", field, defaults[field], here)
		}
	}
}

// sameDefault compares a flag's default as it is written with a value.
func sameDefault(written string, value any) bool {
	if d, ok := value.(time.Duration); ok {
		parsed, err := time.ParseDuration(written)
		return err == nil && parsed == d
	}
	return written == fmt.Sprint(value)
}
