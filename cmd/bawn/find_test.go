package main

import (
	"errors"
	"slices"
	"sync"
	"testing"
)

// TestInTurns: as many calls at once as asked for, and no others; each one's error in its place.
func TestInTurns(t *testing.T) {
	var order []int
	errOdd := errors.New("odd")
	errs := inTurns(1, 4, func(i int) error {
		order = append(order, i)
		if i%2 == 1 {
			return errOdd
		}
		return nil
	})
	if !slices.Equal(order, []int{0, 1, 2, 3}) || !slices.Equal(errs, []error{nil, errOdd, nil, errOdd}) {
		t.Errorf("%v, %v", order, errs)
	}
	var pair sync.WaitGroup // each of two calls waits for the other one
	pair.Add(2)
	inTurns(8, 2, func(int) error {
		pair.Done()
		pair.Wait()
		return nil
	})
	if errs := inTurns(8, 0, func(int) error { return errOdd }); len(errs) > 0 {
		t.Errorf("%v of nothing", errs)
	}
}
