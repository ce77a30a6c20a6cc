package compose

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// files is a project at /home/me/shop.
type files map[string]string

func (f files) read(name string) ([]byte, error) {
	text, ok := f[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

// load reads the compose files of the project, sorted by name unless they are named.
func (f files) load(r Request) (*Result, error) {
	if r.Files == nil {
		for name := range f {
			if strings.HasSuffix(name, ".yml") {
				r.Files = append(r.Files, name)
			}
		}
		slices.Sort(r.Files)
	}
	if r.Service == "" {
		r.Service = "app"
	}
	r.Project, r.Read = "/home/me/shop", f.read
	return Load(r)
}

// model returns a service of the compose file for the guest.
func (s *Stack) model(t *testing.T) (all, services map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.Model), &all); err != nil {
		t.Fatalf("%v: %s", err, s.Model)
	}
	return all, all["services"].(map[string]any)
}

const file = ".devcontainer/docker-compose.yml"

// appAndDatabase has the form of the usual templates: the network of the database is that of the service.
const appAndDatabase = `version: '3.8'

volumes:
  postgres-data:

services:
  app:
    build:
      context: .
      dockerfile: Dockerfile
      args:
        VARIANT: 3.12
    volumes:
      - ../..:/workspaces:cached
    # so the container does not end
    command: sleep infinity
    # the database is at localhost
    network_mode: service:db
    # user: root

  db:
    image: postgres:16
    restart: unless-stopped
    hostname: data
    volumes:
      - postgres-data:/var/lib/postgresql/data
    environment: &env
      POSTGRES_USER: postgres
      POSTGRES_DB: postgres
      POSTGRES_PASSWORD: post$$gres
    ports:
      - 15432:5432
`

func TestTheServicesNetworkIsTheMachines(t *testing.T) {
	got, err := files{file: appAndDatabase}.load(Request{})
	if err != nil {
		t.Fatal(err)
	}
	want := Service{Build: &Build{Context: ".devcontainer", Dockerfile: ".devcontainer/Dockerfile", Args: []string{"VARIANT=3.12"}},
		Project: []string{"/workspaces/shop"}, Ports: []Port{{15432, 5432}}}
	if !reflect.DeepEqual(got.Service, want) {
		t.Errorf("%+v", got.Service)
	}
	s := got.Stack
	if s.Name != "shop_devcontainer" || s.Dir != ".devcontainer" || s.Folder("/p") != "/p/.devcontainer" || !reflect.DeepEqual(s.Services, []Other{{Name: "db", Image: "postgres:16"}}) ||
		!reflect.DeepEqual(s.Hosts, []Host{{"127.0.0.1", []string{"app", "db", "data"}}}) {
		t.Errorf("%+v", s)
	}
	all, services := s.model(t)
	db := services["db"].(map[string]any)
	if len(services) != 1 || db["network_mode"] != "host" || db["networks"] != nil || db["ports"] != nil || db["hostname"] != nil || db["restart"] != "unless-stopped" ||
		db["environment"].(map[string]any)["POSTGRES_PASSWORD"] != "post$$gres" {
		t.Errorf("%v", services)
	}
	if all["name"] != "shop_devcontainer" || all["volumes"].(map[string]any)["postgres-data"] == nil {
		t.Errorf("%v", all)
	}
}

// TestServicesBesideTheService: each has a fixed address that its names stand for, and reaches the machine
// by the names of the service.
func TestServicesBesideTheService(t *testing.T) {
	f := files{"docker-compose.yml": `
services:
  app:
    image: registry.example/node:22
    container_name: shop-app
    user: root
    working_dir: /workspace/web
    environment:
      DATABASE_URL: postgres://db/x
      TOKEN:
      FROM_HOST: "${HOME_DIR}"
      DEFAULT: ${PORT:-3000}
      QUOTED: "it's $$5"
    env_file: [dev.env, {path: missing.env, required: false}]
    volumes: [".:/workspace:cached", "modules:/workspace/node_modules", "shared:/shared", "/workspace/tmp", "./data:/data", "/var/run/docker.sock:/var/run/docker.sock", "~/.ssh:/root/.ssh:ro"]
    ports: ["3000:3000", "127.0.0.1:9000-9001:9000-9001", "8125", "53:53/udp"]
    cap_add: [SYS_PTRACE]
    privileged: true
    command: npm run dev
    links: ["db:database"]
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
  db:
    image: postgres:16
    depends_on: [migrate]
    volumes: ["shared:/shared", "./init:/docker-entrypoint-initdb.d"]
    networks: {back: {aliases: [pg]}, default: }
  migrate:
    build: ./migrations
    env_file: [.env]
  redis:
    image: redis
    network_mode: service:app
    links: [db]
  proxy:
    image: nginx
    depends_on: [app, redis]
    volumes_from: [app]
    extra_hosts: ["app:192.0.2.9"]
  agent:
    image: watcher
    privileged: true
    network_mode: host
    pid: host
    devices: ["/dev/kvm"]
    volumes: ["/var/run/docker.sock:/var/run/docker.sock", "../other:/other"]
  beside:
    image: exporter
    network_mode: service:db
  many:
    image: worker
    deploy: {replicas: 2}
  tools:
    image: adminer
    profiles: [debug]
networks:
  back: {internal: true}
  default: {name: company, external: true}
volumes: {modules: , shared: }
`, "dev.env": "# of the project\nA=1\nB=\"two words\"\nC=${A}${NOWHERE}\nDEFAULT=other\n"}
	got, err := f.load(Request{Forward: []Forward{{"db", 5432}, {"redis", 6379}, {"app", 4000}}})
	if err != nil {
		t.Fatal(err)
	}
	s := got.Service
	if want := []string{"A=1", "B=two words", "C=1", "DATABASE_URL=postgres://db/x", "DEFAULT=3000", "FROM_HOST=", "QUOTED=it's $5"}; !slices.Equal(s.Env, want) {
		t.Errorf("%q", s.Env)
	}
	if want := []string{"HOME_DIR", "NOWHERE", "TOKEN"}; !slices.Equal(s.HostEnv, want) {
		t.Errorf("%q", s.HostEnv)
	}
	if want := []Port{{3000, 3000}, {9000, 9000}, {9001, 9001}, {0, 8125}, {5432, 5432}, {6379, 6379}, {4000, 4000}}; !slices.Equal(s.Ports, want) {
		t.Errorf("%v", s.Ports)
	}
	if s.Image != "registry.example/node:22" || s.User != "root" || s.Dir != "/workspace/web" || !slices.Equal(s.Project, []string{"/workspace"}) ||
		!slices.Equal(s.Volumes, []Volume{{"shop_modules", "/workspace/node_modules", false}}) {
		t.Errorf("%+v", s)
	}
	said := strings.Join(s.NoUse, "\n")
	for _, want := range []string{"privileged", "cap_add", "npm run dev", "/var/run/docker.sock", "~/.ssh", "./data", "/workspace/tmp", "shared:/shared", "53:53/udp"} {
		if !strings.Contains(said, want) {
			t.Errorf("nobody says %q: %s", want, said)
		}
	}
	st := got.Stack
	if !slices.Equal(st.Healthy, []string{"db"}) || !slices.Equal(st.Completed, []string{"migrate"}) || st.Dir != "." || st.Name != "shop" {
		t.Errorf("%+v", st)
	}
	if want := []Host{{"127.0.0.1", []string{"app", "shop-app", "agent", "redis"}}, {"203.0.113.2", []string{"beside", "db", "pg", "database"}}, {"203.0.113.3", []string{"migrate"}}, {"203.0.113.4", []string{"proxy"}}}; !reflect.DeepEqual(st.Hosts, want) {
		t.Errorf("%v", st.Hosts)
	}
	machine := map[string][]string{}
	for _, o := range st.Services {
		machine[o.Name] = o.Machine
	}
	if !slices.Equal(machine["agent"], []string{"a mount of ../other", "a mount of /var/run/docker.sock", "devices", "network_mode: host", "pid: host", "privileged"}) || machine["db"] != nil || len(st.Services) != 7 {
		t.Errorf("%v", machine)
	}
	_, services := st.model(t)
	part := func(path ...string) (v any) {
		v = services
		for _, key := range path {
			m, _ := v.(map[string]any)
			v = m[key]
		}
		return v
	}
	for want, v := range map[string]any{
		"203.0.113.2": part("db", "networks", networkKey, "ipv4_address"), "host": part("redis", "network_mode"), "map[]": part("many", "networks", networkKey),
		"service:db": part("beside", "network_mode"), "<nil>": part("proxy", "depends_on", "app"),
		"[app=192.0.2.9 redis=203.0.113.1 shop-app=203.0.113.1]": part("proxy", "extra_hosts"),
	} {
		if fmt.Sprint(v) != want {
			t.Errorf("%v, want %s", v, want)
		}
	}
	if part("tools") != nil || part("app") != nil || part("redis", "links") != nil || part("proxy", "volumes_from") != nil && len(part("proxy", "volumes_from").([]any)) > 0 {
		t.Errorf("%v", services)
	}
	if ports := fmt.Sprint(part("db", "ports")); !strings.Contains(ports, "host_ip:127.0.0.1") || !strings.Contains(ports, "target:5432") {
		t.Errorf("%s", ports)
	}
	if strings.Contains(st.Model, `"external"`) {
		t.Error("an external network stays external")
	}
}

// TestSeveralFiles: later ones add to earlier ones, and paths start from the first.
func TestSeveralFiles(t *testing.T) {
	f := files{
		"docker-compose.yml": "name: store\nservices:\n  app:\n    build: {context: ., target: prod, args: {A: a, B: }}\n    ports: ['80:80']\n    depends_on: [db]\n  db: {image: 'mysql:8'}\n  mail: {image: mailhog}\n",
		"dev/extend.yml": `services:
  app:
    build: {dockerfile: dev.Dockerfile, target: dev}
    ports: !reset []
    volumes: [".:/src"]
    extends: base
  base: {image: unused, environment: {FROM_BASE: "1"}}
`,
	}
	got, err := f.load(Request{Files: []string{"docker-compose.yml", "dev/extend.yml"}, Run: []string{"app"}})
	if err != nil {
		t.Fatal(err)
	}
	want := Service{Build: &Build{Context: ".", Dockerfile: "dev.Dockerfile", Target: "dev", Args: []string{"A=a"}}, Env: []string{"FROM_BASE=1"}, Project: []string{"/src"}}
	if !reflect.DeepEqual(got.Service, want) {
		t.Errorf("%+v, %+v", got.Service, got.Service.Build)
	}
	if s := got.Stack; s.Name != "store" || len(s.Services) != 1 || s.Services[0].Name != "db" {
		t.Errorf("of runServices and what they need: %+v", s)
	}
	if got, err = f.load(Request{Files: []string{"docker-compose.yml"}, Run: []string{"mail"}}); err != nil || len(got.Stack.Services) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	alone, err := files{file: "services: {app: {image: a}}"}.load(Request{})
	if err != nil || alone.Stack.Model != "" || alone.Stack.Services != nil {
		t.Errorf("a service alone: %+v, %v", alone, err)
	}
}

// TestHiddenFilesOfVariables are not taken, and let the others start.
func TestHiddenFilesOfVariables(t *testing.T) {
	f := files{file: "services: {app: {image: a, env_file: .env}, db: {image: b, env_file: [.env, other.env]}}", ".devcontainer/.env": "SECRET=1\n"}
	got, err := f.load(Request{Hidden: func(name string) bool { return filepath.Base(name) == ".env" }})
	if err != nil || got.Service.Env != nil || !slices.Equal(got.Service.NotRead, []string{".devcontainer/.env"}) || strings.Contains(got.Stack.Model, "SECRET") {
		t.Fatalf("%+v, %v", got, err)
	}
	_, services := got.Stack.model(t)
	if list := fmt.Sprint(services["db"].(map[string]any)["env_file"]); list != "[map[path:.env required:false] map[path:other.env]]" {
		t.Error(list)
	}
}

// TestForwardedPortsArePublished: at the port that the file names, else at the same one.
func TestForwardedPortsArePublished(t *testing.T) {
	for ports, want := range map[string]uint16{"'15432:5432'": 15432, "'0:5432'": 5432, "5432": 5432, "{target: 5432, published: '1000-1005'}": 5432, "'5433:5433', '5432/udp', '6000:5432'": 6000} {
		got, err := files{file: "services: {app: {image: a}, db: {image: b, ports: [" + ports + "]}}"}.load(Request{Forward: []Forward{{"db", 5432}}})
		if err != nil || !slices.Equal(got.Service.Ports, []Port{{5432, want}}) || !strings.Contains(got.Stack.Model, fmt.Sprintf(`"published": "%d"`, want)) {
			t.Errorf("%s: %+v, %v", ports, got, err)
		}
	}
}

// TestNamesOfServicesInTheHostsFile: none is that of the machine itself, or more than a name.
func TestNamesOfServicesInTheHostsFile(t *testing.T) {
	got, err := files{file: `services: {app: {image: a}, db: {image: b, hostname: "x y", container_name: Localhost, networks: {default: {aliases: ["a\nb", "a\t#", LOCALHOST, localhost.localdomain, ip6-loopback, localhost6, Bawn.internal, host.bawn.internal, -x, ` +
		repeated(200, "n%d,") + `db.localhost]}}}}`}.load(Request{})
	if err != nil || len(got.Stack.Hosts) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if names := got.Stack.Hosts[1].Names; len(names) != maxList || names[0] != "db" || names[1] != "n0" || names[2] != "n1" {
		t.Errorf("%q", names)
	}
}

func TestHostileFiles(t *testing.T) {
	t.Setenv("BAWN_SECRET", "of the host")
	secret := filepath.Join(t.TempDir(), "secret.yml")
	if err := os.WriteFile(secret, []byte("services: {app: {image: stolen, environment: {S: stolen}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	bomb := "x-0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + func() (s string) {
		for i := range 8 {
			s += fmt.Sprintf("x-%d: &a%d [*a%[3]d,*a%[3]d,*a%[3]d,*a%[3]d,*a%[3]d,*a%[3]d,*a%[3]d,*a%[3]d,*a%[3]d,*a%[3]d]\n", i+1, i+1, i)
		}
		return s
	}() + "services: {app: {image: a}}\n"
	for text, want := range map[string]string{
		"include: [" + secret + "]\nservices: {app: {image: a}}":                                               "does not lie in the project",
		"include: other.yml\nservices: {app: {image: a}}":                                                      "must be a list",
		"services: {app: {extends: {file: " + secret + ", service: app}}}":                                     "extends: the file",
		"services: {app: {extends: {file: common.yml, service: app}}}":                                         "common.yml: file does not exist",
		"services: {app: {image: a}, db: {extends: {file: ../../../etc/x.yml, service: x}}}":                   "extends: the file",
		"services: {app: {image: a, extends: {service: app, file: [1]}}}":                                      "another type",
		"services: {app: {image: a, env_file: " + secret + "}}":                                                "does not lie in the project",
		"services: {app: {image: a, env_file: ../../x.env}}":                                                   "does not lie in the project",
		"services: {app: {image: a, env_file: missing.env}}":                                                   "missing.env",
		"services: {app: {build: {context: 'https://example.com/x.git'}}}":                                     "must be a folder",
		"services: {app: {build: {context: ., dockerfile_inline: FROM x}}}":                                    "dockerfile_inline",
		"services: {app: {image: a}, db: {image: b, pid: 'service:app'}}":                                      "cannot share",
		"services: {app: {image: a, network_mode: 'service:db'}, db: {image: b, network_mode: 'service:app'}}": "cycle",
		"services: {app: {image: a, volumes: ['.:relative']}}":                                                 "not an absolute path",
		"services: {app: {image: a, volumes: [{type: bind, source: ., target: \"/w\\nx\"}]}}":                  "not an absolute path",
		"services: {web: {image: a}}":                                                                          "there is no service",
		"services: {app: {image: '${IMAGE:?name one}'}}":                                                       "name one",
		"services: {app: {}}":                                                                             "neither an image nor a build",
		"services: {app: {image: a, colour: red}}":                                                        "colour",
		"services: {app: {image: a, environment: {'A B': x}}}":                                            "not the name of a variable",
		"services: {app: {image: \"a\\e[2J\"}}":                                                           "cannot be shown",
		"services: {app: {image: a, environment: {A: \"\\e[2J\"}}}":                                       "cannot be shown",
		"services: {app: {image: a}, bawn: {image: b, networks: [bawn-names]}}\nnetworks: {bawn-names: }": "has a name that bawn needs",
		"services:\n  app: {image: a}\n" + many("  s%d: {image: a}\n", maxServices):                       "more than 64 services",
		"services: {app: {image: a}}\nx-many: [" + many("%d,", maxNodes) + "]":                            "more than 20000 values",
		bomb:           "more than 20000 values",
		"x: &x [*x]\n": "values",
		"- 1":          "",
		"services: [a": "",
		"\x00":         "",
		"services: {app: {image: a, volumes: [" + many("'v%[1]d:/v%[1]d',", maxList+1) + "]}}\nvolumes: {" + many("v%d: ,", maxList+1) + "}": "more than 64 volumes",
		"services: {app: {image: a, environment: {" + many("A%d: x,", maxVariables+1) + "}}}":                                                "more than 256 variables",
	} {
		got, err := files{file: text}.load(Request{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\x1b\n") || strings.Contains(err.Error(), "stolen") {
			t.Errorf("%.200s: %+v, %v", text, got, err)
		}
	}
	got, err := files{file: `{services: {app: {image: "a:${BAWN_SECRET}", environment: ["BAWN_SECRET", "B=$BAWN_SECRET", "C=${BAWN_SECRET-x}"], develop: {watch: [{path: /etc, action: rebuild}]}}}}`}.load(Request{})
	if err != nil || got.Service.Image != "a:" || !slices.Equal(got.Service.Env, []string{"B=", "C=x"}) || !slices.Equal(got.Service.HostEnv, []string{"BAWN_SECRET"}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, r := range []Request{{Files: []string{}}, {Files: []string{"../x.yml"}}, {Files: []string{"/etc/passwd"}}, {Files: make([]string, MaxFiles+1)},
		{Run: []string{"none"}}, {Forward: []Forward{{"none", 1}}}} {
		if got, err := (files{file: "services: {app: {image: a}}"}).load(r); err == nil {
			t.Errorf("%+v: %+v", r, got)
		}
	}
	if _, err := (files{file: "services: {app: {image: a}}"}).load(Request{Hidden: func(string) bool { return true }}); err == nil || !strings.Contains(err.Error(), "is hidden") {
		t.Error(err)
	}
	wrong := errors.New("no disk")
	if _, err := Load(Request{Files: []string{"a"}, Read: func(string) ([]byte, error) { return nil, wrong }}); !errors.Is(err, wrong) {
		t.Error(err)
	}
}

// FuzzLoad: no text of a file makes the reader panic, or makes a compose file that is none.
func FuzzLoad(f *testing.F) {
	f.Add(appAndDatabase, "A=1")
	f.Add("services: {app: {image: a, env_file: e, links: [db]}, db: {image: b, network_mode: 'service:app'}}", "A='x\nB=${A:-1}")
	f.Add("services: {app: {build: ., volumes: ['..:/w']}, x: {image: ${A}, ports: ['1-2:1-2']}}\n---\nservices: {app: !reset null}", "")
	f.Fuzz(func(t *testing.T, text, env string) {
		got, err := files{file: text, ".devcontainer/e": env}.load(Request{})
		if err != nil {
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%q", err)
			}
			return
		}
		if got.Stack.Model != "" {
			got.Stack.model(t)
		}
	})
}
