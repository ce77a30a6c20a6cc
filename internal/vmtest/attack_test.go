//go:build vm

package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestConformance measures bawn by the list of attacks that runs in any sandbox (bawn
// attack): the names and ports are allowed as a person would do it, and nothing else is.
func TestConformance(t *testing.T) {
	adapter := "'" + os.Getenv("BAWN") + `' run --rm --memory 1G --add-host "$ATTACK_ALLOWED:$ATTACK_ADDR" --add-host "$ATTACK_DENIED:$ATTACK_ADDR"` +
		` --add-host "$ATTACK_LOOP:127.0.0.1" --allow "$ATTACK_ALLOWED:$ATTACK_PORTS" --allow "$ATTACK_ADDR:$ATTACK_PORTS" --allow "$ATTACK_LOOP" --`
	r := bawn(t, filepath.Join(base, "home"), "attack", "--json", "--adapter", adapter)
	if r.code != 0 {
		t.Fatalf("bawn attack: exit status %d\n%s%s", r.code, r.out, r.err)
	}
	var report struct {
		Results []struct{ ID, Outcome, Why string }
	}
	if err := json.Unmarshal([]byte(r.out), &report); err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, v := range report.Results {
		switch {
		case v.Outcome == "held":
			held++
		case v.Outcome == "not applicable" && slices.Contains([]string{"metadata", "ipv6"}, v.ID):
		default:
			t.Errorf("%s: %s: %s", v.ID, v.Outcome, v.Why)
		}
	}
	if held < 35 {
		t.Errorf("%d attacks held", held)
	}
}
