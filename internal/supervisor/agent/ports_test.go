package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/supervisor/agent/agenttest"
	"bawn.dev/bawn/internal/wire"
)

// TestWatchPorts: only ports that were asked for are reported, until ctx ends.
func TestWatchPorts(t *testing.T) {
	a, g := agenttest.New(t)
	asked := make(chan wire.StreamHeader, 1)
	session(t, a, g, func(s *yamux.Stream) {
		var h wire.StreamHeader
		line, _ := bufio.NewReader(s).ReadBytes('\n')
		_ = json.Unmarshal(line, &h)
		asked <- h
		_, _ = io.WriteString(s, `{"open":[]}`+"\n"+`{"open":[22,80,65535],"more":1}`+"\n")
	})
	ctx, cancel := context.WithCancel(t.Context())
	var got [][]uint16
	err := a.WatchPorts(ctx, []uint16{80, 443}, func(open []uint16) {
		if got = append(got, open); len(got) == 2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if h := <-asked; h.Kind != wire.StreamPorts || !slices.Equal(h.Ports, []uint16{80, 443}) {
		t.Errorf("asked: %+v", h)
	}
	if len(got) != 2 || len(got[0]) != 0 || !slices.Equal(got[1], []uint16{80}) {
		t.Errorf("reported: %v", got)
	}
}

// TestWatchPortsOfAHostileGuest, or of an agent that does not know the request, ends with an
// error and reports nothing.
func TestWatchPortsOfAHostileGuest(t *testing.T) {
	for name, sent := range map[string]string{
		"an older agent":  "",
		"an endless line": strings.Repeat(" ", 1000),
		"no JSON":         "open\n",
		"no port":         `{"open":[70000]}` + "\n",
		"text":            `{"open":["80"]}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			a, g := agenttest.New(t)
			session(t, a, g, func(s *yamux.Stream) {
				_, _ = io.WriteString(s, sent)
				if name != "an endless line" {
					s.Close()
				}
			})
			err := a.WatchPorts(t.Context(), []uint16{80}, func(open []uint16) { t.Errorf("reported: %v", open) })
			if err == nil {
				t.Error("no error")
			}
		})
	}
}
