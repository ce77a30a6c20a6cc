package supervisor

import (
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// TestABuilderHasNoSecrets: nothing puts them into its requests, and no TLS is ended for them.
func TestABuilderHasNoSecrets(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, v := range []string{"XDG_STATE_HOME", "XDG_CONFIG_HOME"} {
		t.Setenv(v, "")
	}
	for _, builder := range []bool{false, true} {
		i, err := (&supervisor{spec: &sandbox.Spec{Dir: "/home/me/web", Builder: builder}}).inspector()
		if err != nil || (i == nil) != builder {
			t.Errorf("builder %v: %v, %v", builder, i, err)
		}
	}
}
