// Command rate says how many evaluations a second native OPA makes on one core: it takes a directory with Rego, a query,
// a file with one input a line and a number of seconds. Inputs are parsed before the clock starts.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/rego"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: rate RULES-DIR QUERY INPUTS SECONDS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func run(rules, query, inputs, seconds string) error {
	runtime.GOMAXPROCS(1)
	ctx := context.Background()
	loaded, err := loader.NewFileLoader().All([]string{rules})
	if err != nil {
		return err
	}
	opts := []func(*rego.Rego){rego.Query(query), rego.SetRegoVersion(ast.RegoV1)}
	for _, module := range loaded.Modules {
		opts = append(opts, rego.ParsedModule(module.Parsed))
	}
	prepared, err := rego.New(opts...).PrepareForEval(ctx)
	if err != nil {
		return err
	}
	values, err := read(inputs)
	if err != nil {
		return err
	}
	limit, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		return err
	}
	count, found := 0, 0
	started := time.Now()
	for time.Since(started).Seconds() < limit {
		for _, value := range values {
			results, err := prepared.Eval(ctx, rego.EvalParsedInput(value))
			if err != nil {
				return err
			}
			count++
			for _, result := range results {
				for _, expression := range result.Expressions {
					if count <= len(values) {
						found += members(expression.Value)
					}
				}
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"rate": float64(count) / time.Since(started).Seconds(), "found": float64(found),
	})
}

// What rules found: the members of a set, or of every rule of a package that is asked whole.
func members(value any) int {
	switch v := value.(type) {
	case []any:
		return len(v)
	case map[string]any:
		sum := 0
		for name, set := range v {
			if strings.HasPrefix(name, "deny") {
				sum += members(set)
			}
		}
		return sum
	}
	return 0
}

func read(file string) ([]ast.Value, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	var values []ast.Value
	for lines.Scan() {
		value, err := ast.ValueFromReader(bytes.NewReader(lines.Bytes()))
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, lines.Err()
}
