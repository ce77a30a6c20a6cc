package wire

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// TestMessages: each message survives the way, and its form on the wire does not change:
// a suspended sandbox has the agent of the bawn that started it.
func TestMessages(t *testing.T) {
	at := time.Date(2026, 11, 28, 19, 30, 0, 5, time.UTC)
	identity := Identity{
		Hostname: "box", MachineID: "0123456789abcdef0123456789abcdef", Seed: []byte{1, 2}, Time: at,
		HostKey: []byte("PEM"), AuthorizedKeys: []string{"ssh-ed25519 AAAA"},
		MAC: "52:54:00:12:34:56", Addresses: []string{"10.9.2.3/32"}, Workdir: "/project",
	}
	const identityJSON = `"hostname":"box","machineID":"0123456789abcdef0123456789abcdef","seed":"AQI=","time":"2026-11-28T19:30:00.000000005Z",` +
		`"hostKey":"UEVN","authorizedKeys":["ssh-ed25519 AAAA"],"mac":"52:54:00:12:34:56","addresses":["10.9.2.3/32"],"workdir":"/project"`
	for _, c := range []struct {
		message any
		want    string
	}{
		{Request{ID: 7, Op: OpHello}, `{"id":7,"op":"hello"}`},
		{Request{ID: 7, Op: OpTime, Body: json.RawMessage(`"x"`)}, `{"id":7,"op":"time","body":"x"}`},
		{Reply{ID: 7}, `{"id":7}`},
		{Reply{ID: 7, Error: "no", Body: json.RawMessage(`1`)}, `{"id":7,"error":"no","body":1}`},
		{HelloReply{Version: "v1", Kernel: "6.12"}, `{"version":"v1","kernel":"6.12"}`},
		{PrepareRequest{ImageSerial: "i", ModulesSerial: "m", Tags: []string{"s0"}}, `{"imageSerial":"i","modulesSerial":"m","tags":["s0"]}`},
		{identity, "{" + identityJSON + "}"},
		{Identity{}, `{"hostname":"","machineID":"","seed":null,"time":"0001-01-01T00:00:00Z","hostKey":null,"authorizedKeys":null}`},
		{
			SetupRequest{
				Identity: identity, Timezone: "Europe/Berlin",
				User:        User{Name: "me", UID: 1000, GID: 1001, Group: "us", Home: "/home/me"},
				ImageSerial: "i", DiskSerial: "d", ModulesSerial: "m", ImageEnv: []string{"A=1"},
				Mounts: []Mount{{Tag: "s0", Path: "/project"}},
				Net:    &Net{MTU: 1500, Gateways: []string{"10.1.2.1"}, DNS: []string{"10.1.2.2"}, CACert: []byte("PEM")},
			},
			`{` + identityJSON + `,"timezone":"Europe/Berlin","user":{"name":"me","uid":1000,"gid":1001,"group":"us","home":"/home/me"},` +
				`"imageSerial":"i","diskSerial":"d","modulesSerial":"m","imageEnv":["A=1"],"mounts":[{"tag":"s0","path":"/project"}],` +
				`"net":{"mtu":1500,"gateways":["10.1.2.1"],"dns":["10.1.2.2"],"caCert":"UEVN"}}`,
		},
		{Mount{Tag: "s1", Path: "/etc/x", ReadOnly: true, File: "x"}, `{"tag":"s1","path":"/etc/x","readOnly":true,"file":"x"}`},
		{ClockRequest{}, `{}`},
		{ClockRequest{Forward: -5}, `{"forward":-5}`},
		{ClockRequest{Timezone: "Europe/Berlin"}, `{"timezone":"Europe/Berlin"}`},
		{ClockReply{Now: 1000000007}, `{"now":1000000007}`},
		{
			User{Name: "me", Shell: "/bin/zsh", Groups: []Group{{Name: "team", GID: 2000}, {GID: 2001}}},
			`{"name":"me","uid":0,"gid":0,"group":"","home":"","shell":"/bin/zsh","groups":[{"name":"team","gid":2000},{"gid":2001}]}`,
		},
		{MuxRequest{Nonce: []byte{1, 2, 3}}, `{"nonce":"AQID"}`},
		{
			[]ProcessRequest{{Proto: "tcp", Src: netip.MustParseAddrPort("10.9.2.3:40000"), Dst: netip.MustParseAddrPort("[fd00::1]:443")}},
			`[{"proto":"tcp","src":"10.9.2.3:40000","dst":"[fd00::1]:443"}]`,
		},
		{[]ProcessReply{{PID: 41, Name: "curl"}, {}}, `[{"pid":41,"name":"curl"},{}]`},
		{StreamHeader{Kind: StreamSSH}, `{"kind":"ssh"}`},
		{StreamHeader{Kind: StreamSSH, Umask: new(uint32)}, `{"kind":"ssh","umask":0}`},
		{StreamHeader{Kind: StreamTCP, Port: 8080}, `{"kind":"tcp","port":8080}`},
		{StreamHeader{Kind: StreamPorts, Ports: []uint16{80, 8080}}, `{"kind":"ports","ports":[80,8080]}`},
		{PortsReply{Open: []uint16{80}}, `{"open":[80]}`},
		{StreamReply{}, `{}`},
		{StreamReply{Error: "refused"}, `{"error":"refused"}`},
	} {
		b, err := json.Marshal(c.message)
		if err != nil || string(b) != c.want {
			t.Errorf("%T is\n%s, %v; want\n%s", c.message, b, err, c.want)
			continue
		}
		back := reflect.New(reflect.TypeOf(c.message))
		if err := json.Unmarshal(b, back.Interface()); err != nil {
			t.Errorf("%T: %v", c.message, err)
		} else if got := back.Elem().Interface(); !reflect.DeepEqual(got, c.message) {
			t.Errorf("%T came back as %+v", c.message, got)
		}
	}
}

// TestNewerSide: fields that this side does not know are ignored.
func TestNewerSide(t *testing.T) {
	var m Mount
	if err := json.Unmarshal([]byte(`{"tag":"s0","path":"/p","new":{"x":[1]}}`), &m); err != nil || m != (Mount{Tag: "s0", Path: "/p"}) {
		t.Errorf("%+v, %v", m, err)
	}
}
