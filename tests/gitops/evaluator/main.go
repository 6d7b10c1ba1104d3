// Asks Argo CD's and Flux's own engines how healthy objects are: gopher-lua with the libraries that Argo CD opens for scripts of
// argocd-cm (package, base, table, and of os only time and date; no string), and Flux's evaluator of healthCheckExprs with kstatus.
// Prometheus' own parser reads the expressions of rules and dashboards.
//
// Reads a JSON list of questions from standard input and writes the list of answers to standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/prometheus/prometheus/promql/parser"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	// Lua, Flux, Kstatus or PromQL.
	Tool string `json:"tool"`
	// Lua or PromQL.
	Script string                           `json:"script"`
	Checks kustomize.HealthCheckExpressions `json:"checks"`
	Object unstructured.Unstructured        `json:"object"`
}

type answer struct {
	// What a script returned, or the status as a word.
	Value any    `json:"value"`
	Error string `json:"error"`
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	answers := make([]answer, 0, len(questions))
	for _, each := range questions {
		value, err := ask(each)
		said := answer{Value: value}
		if err != nil {
			said = answer{Error: err.Error()}
		}
		answers = append(answers, said)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func ask(asked question) (any, error) {
	switch asked.Tool {
	case "Lua":
		return run(asked.Script, asked.Object.Object)
	case "Flux":
		evaluator, err := cel.NewStatusEvaluator(&asked.Checks)
		if err != nil {
			return nil, err
		}
		return word(evaluator.Evaluate(context.Background(), &asked.Object))
	case "PromQL":
		return metrics(asked.Script)
	case "Kstatus":
		return word(status.Compute(&asked.Object))
	}
	return nil, fmt.Errorf("no tool %q", asked.Tool)
}

// Names of the metrics that an expression asks for.
func metrics(expression string) (any, error) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		return nil, err
	}
	names := []string{}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			names = append(names, selector.Name)
		}
		return nil
	})
	return names, nil
}

func word(result *status.Result, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return result.Status.String(), nil
}

func run(script string, object map[string]any) (any, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	opened := map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.OsLibName: openClock,
	}
	for _, name := range []string{lua.LoadLibName, lua.BaseLibName, lua.TabLibName, lua.OsLibName} {
		call := lua.P{Fn: state.NewFunction(opened[name]), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limit)
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returned a %s, not a table", state.Get(-1).Type())
	}
	return fromLua(table), nil
}

// What is left of os: a whole os library would let a script read files and start programs.
func openClock(state *lua.LState) int {
	lua.OpenOs(state)
	whole := state.GetGlobal(lua.OsLibName).(*lua.LTable)
	left := state.NewTable()
	for _, name := range []string{"time", "date"} {
		left.RawSetString(name, whole.RawGetString(name))
	}
	state.SetGlobal(lua.OsLibName, left)
	return 0
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch known := value.(type) {
	case bool:
		return lua.LBool(known)
	case string:
		return lua.LString(known)
	case int64:
		return lua.LNumber(known)
	case float64:
		return lua.LNumber(known)
	case []any:
		list := state.NewTable()
		for _, item := range known {
			list.Append(toLua(state, item))
		}
		return list
	case map[string]any:
		table := state.NewTable()
		for name, item := range known {
			table.RawSetString(name, toLua(state, item))
		}
		return table
	}
	return lua.LNil
}

// An empty table is a list here, as it is for Argo CD: Lua cannot tell.
func fromLua(value lua.LValue) any {
	switch known := value.(type) {
	case lua.LBool:
		return bool(known)
	case lua.LString:
		return string(known)
	case lua.LNumber:
		return float64(known)
	case *lua.LTable:
		named := map[string]any{}
		known.ForEach(func(name, item lua.LValue) {
			if text, ok := name.(lua.LString); ok {
				named[string(text)] = fromLua(item)
			}
		})
		if len(named) > 0 {
			return named
		}
		list := []any{}
		for i := 1; i <= known.Len(); i++ {
			list = append(list, fromLua(known.RawGetInt(i)))
		}
		return list
	}
	return nil
}
