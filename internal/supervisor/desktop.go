package supervisor

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/text"
)

// notifyProgram shows a notification on the person's desktop (Desktop Notifications
// Specification). Where it is not installed, or there is no desktop, nothing is shown.
const notifyProgram = "notify-send"

// notifyTime bounds the run of that program.
const notifyTime = 10 * time.Second

// maxNotified bounds the guest's text in a notification, in characters.
const maxNotified = 200

// desktop shows notifications, one at a time; what comes meanwhile is left out. The zero value is
// ready.
type desktop struct{ busy atomic.Bool }

// accessRequest shows that the guest of a sandbox asks for a rule. It returns at once.
func (d *desktop) accessRequest(name string, a control.Access) {
	if !d.busy.CompareAndSwap(false, true) {
		return
	}
	go func() { // it ends within notifyTime, also if the sandbox ends
		defer d.busy.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), notifyTime)
		defer cancel()
		cmd := proc.Command(ctx, notifyProgram, notification(name, a)...)
		for _, k := range desktopEnv {
			if v, ok := os.LookupEnv(k); ok {
				cmd.Env = append(cmd.Env, k+"="+v)
			}
		}
		_ = cmd.Run() // a hint only
	}()
}

// desktopEnv are the variables by which the program finds the desktop's bus.
var desktopEnv = []string{"DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"}

// notification returns the arguments of the program. The body of a notification may have markup,
// so that the guest's text is escaped.
func notification(name string, a control.Access) []string {
	body := "It asks for " + markup(a.Rule) + ": " + markup(a.Reason) + "\nTo decide: bawn net ask --name " + name
	return []string{"--app-name=bawn", "--", "bawn: sandbox " + name, body}
}

// markup returns text of the guest as it is to be shown, escaped as XML. A backslash is escaped too:
// the program reads octal numbers and the like behind one (g_strcompress of GLib).
func markup(s string) string {
	return strings.NewReplacer("\\", "&#92;", "&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text.Short(s, maxNotified))
}
