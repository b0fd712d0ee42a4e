// Command conformance compiles every case of OPA's own conformance suite to Wasm and writes one JSON object a line:
// the compiled query with the case's data, input and expected answer, to its standard output. It takes the directory of
// the cases. The cases lie in OPA's Go module under v1/test/cases/testdata.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/test/cases"
)

type compiled struct {
	cases.TestCase
	Version string `json:"version"`
	Family  string `json:"family"`
	Wasm    []byte `json:"wasm,omitempty"`
	Error   string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: conformance CASES-DIR")
		os.Exit(2)
	}
	w := bufio.NewWriterSize(os.Stdout, 1<<20)
	enc := json.NewEncoder(w)
	for _, v := range []struct {
		name    string
		version ast.RegoVersion
	}{{"v0", ast.RegoV0}, {"v1", ast.RegoV1}} {
		for _, tc := range cases.MustLoad(filepath.Join(os.Args[1], v.name)).Sorted().Cases {
			if err := enc.Encode(compile(tc, v.name, v.version)); err != nil {
				panic(err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		panic(err)
	}
}

func compile(tc cases.TestCase, name string, version ast.RegoVersion) compiled {
	caps := ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(tc.ExperimentalKeywords))
	opts := []func(*rego.Rego){rego.Query(tc.Query), rego.SetRegoVersion(version), rego.Capabilities(caps)}
	for i, module := range tc.Modules {
		opts = append(opts, rego.Module(fmt.Sprintf("module-%d.rego", i), module))
	}
	family := filepath.Base(filepath.Dir(tc.Filename))
	result, err := rego.New(opts...).Compile(context.Background())
	if err != nil {
		return compiled{TestCase: tc, Version: name, Family: family, Error: strings.SplitN(err.Error(), "\n", 2)[0]}
	}
	return compiled{TestCase: tc, Version: name, Family: family, Wasm: result.Bytes}
}
