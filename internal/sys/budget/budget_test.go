package budget

import (
	"slices"
	"testing"
)

func TestList(t *testing.T) {
	var a Account
	n := int64(1)
	a.Add("flows", 10, func() int64 { return n })
	a.Add("datagram bytes", 100, func() int64 { return 7 })
	n = 3
	if got := a.List(); !slices.Equal(got, []Use{{"datagram bytes", 7, 100}, {"flows", 3, 10}}) {
		t.Errorf("%+v", got)
	}
}
