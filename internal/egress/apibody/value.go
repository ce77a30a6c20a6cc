package apibody

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vektah/gqlparser/v2/ast"
)

// absent is the value of a variable that has none.
type absent struct{}

// value returns what an argument stands for, as in JSON: variables by their values. Enumerations are their names.
// depth is that of the argument in lists and objects.
func (q *query) value(v *ast.Value, depth int) (any, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("an argument nests deeper than %d levels", maxNesting)
	}
	switch v.Kind {
	case ast.Variable:
		return q.variable(v.Raw)
	case ast.StringValue, ast.EnumValue:
		return v.Raw, nil
	case ast.BooleanValue:
		return v.Raw == "true", nil
	case ast.IntValue, ast.FloatValue:
		return json.Number(v.Raw), nil
	case ast.NullValue:
		return nil, nil
	case ast.ListValue:
		return q.list(v, depth)
	case ast.ObjectValue:
		return q.fieldsOf(v, depth)
	}
	return nil, errors.New("an argument of another kind than JSON has is not understood")
}

func (q *query) list(v *ast.Value, depth int) (any, error) {
	list := []any{}
	for _, c := range v.Children {
		one, err := q.value(c.Value, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, nil
}

func (q *query) fieldsOf(v *ast.Value, depth int) (any, error) {
	o := map[string]any{}
	for _, c := range v.Children {
		if _, twice := o[c.Name]; twice {
			return nil, fmt.Errorf("an argument has the name %s twice in one object", short(c.Name))
		}
		one, err := q.value(c.Value, depth+1)
		if err != nil {
			return nil, err
		}
		o[c.Name] = one // also if it is absent, or it could be there twice
	}
	return o, nil
}

// variable returns the value of a variable of the operation that is judged.
func (q *query) variable(name string) (any, error) {
	byDefault, declared := q.defaults[name]
	given, has := q.values[name]
	switch {
	case !declared:
		return nil, fmt.Errorf("the variable %s is not declared", short(name))
	case has:
		return given, nil
	case byDefault == nil:
		return absent{}, nil
	case isConstant(byDefault):
		return q.value(byDefault, 0)
	}
	return nil, fmt.Errorf("the default of the variable %s has a variable in it", short(name))
}

// isConstant reports whether no variable is in a value. The parser has bounded how deep it nests.
func isConstant(v *ast.Value) bool {
	if v.Kind == ast.Variable {
		return false
	}
	for _, c := range v.Children {
		if !isConstant(c.Value) {
			return false
		}
	}
	return true
}
