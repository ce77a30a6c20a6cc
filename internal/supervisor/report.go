package supervisor

import (
	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/egress/audit"
)

// What the person is told of the network while the sandbox runs: denials, and rules that the
// guest asks for.

// reportEntry passes denials and access requests to the subscribers of events. It is called for
// each line of the network log, and does not block.
func (s *supervisor) reportEntry(e audit.Entry) {
	switch e.Verdict {
	case audit.Denied:
		s.life.events.Send(control.Event{Kind: control.KindDenial, Time: e.Time, Denial: &control.Denial{
			Proto: e.Proto, App: e.App, Name: e.Name, Addr: e.Addr, Port: e.Port,
			Rule: e.Rule, Reason: e.Reason, Suggest: e.Suggest, Process: e.Process, Count: e.Count,
		}})
	case audit.Asked:
		if e.Suggest == "" { // a line that counts others
			return
		}
		a := control.Access{Rule: e.Suggest, Reason: e.Reason, Time: e.Time}
		s.life.events.Send(control.Event{Kind: control.KindAccess, Time: e.Time, Access: &a})
		s.desktop.accessRequest(s.spec.Name, a)
	}
}

// accessRequests lists the requests of the guest that wait for the person.
func (s *supervisor) accessRequests() (list []control.Access) {
	if s.network == nil {
		return nil
	}
	for _, r := range s.network.gate.AccessRequests() {
		if r.State == egress.AskWaiting {
			list = append(list, control.Access{Rule: r.Rule, Reason: r.Reason, Time: r.Time})
		}
	}
	return list
}

// RefuseAccess implements control.Service.
func (s *supervisor) RefuseAccess(rule string) error {
	s.network.gate.RefuseAccess(rule)
	return nil
}
