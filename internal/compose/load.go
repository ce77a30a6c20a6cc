package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/tree"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"

	"bawn.dev/bawn/internal/sys/text"
)

// Load reads compose files. An error says what is wrong with them.
func Load(r Request) (out *Result, err error) {
	defer func() { // compose-go takes some values for texts that it has not looked at
		if p := recover(); p != nil {
			out, err = nil, shown(fmt.Errorf("a value has another type than its key takes: %v", p))
		}
	}()
	if len(r.Files) == 0 || len(r.Files) > MaxFiles {
		return nil, fmt.Errorf("expected 1 to %d compose files, found %d", MaxFiles, len(r.Files))
	}
	l := &load{Request: r, dir: path.Dir(r.Files[0]), unset: map[string]bool{}, used: map[string]bool{}, refs: map[string]*source{}, given: map[string]map[string]string{}}
	defer l.close()
	if err := l.read(); err != nil {
		return nil, err
	}
	if err := l.parse(); err != nil {
		return nil, err
	}
	out = &Result{}
	if out.Service, err = l.service(); err != nil {
		return nil, err
	}
	if out.Stack, err = l.stack(&out.Service); err != nil {
		return nil, err
	}
	out.Service.HostEnv = slices.Sorted(maps.Keys(l.unset))
	out.Taken, out.NotTaken = l.taken(), l.kept
	return out, nil
}

// load is one call of Load.
type load struct {
	Request
	dir   string // of the first file, which relative paths start from; relative to the project
	files []types.ConfigFile
	name  string // that the files give the project
	unset map[string]bool
	spent spent

	env     types.Mapping // the variables of the project's .env
	copies  []*copied
	sources []*source
	refs    map[string]*source           // by the words that stand for them (word)
	secret  string                       // in each of these words
	used    map[string]bool              // variables that were looked up
	given   map[string]map[string]string // variables of hidden files, by the file
	kept    []string                     // hidden files that gave none

	project *types.Project
	own     types.ServiceConfig // the service that is worked in
}

// shown returns an error of a parser, which may have parts of the file, without what cannot be shown.
func shown(err error) error {
	return errors.New(text.Short(strings.Join(strings.Fields(err.Error()), " "), maxShown))
}

// maxShown bounds the text of an error, in bytes.
const maxShown = 1000

// quiet keeps compose-go from writing warnings to the terminal. What it warns of is in the Result, or has
// no effect.
var quiet = sync.OnceFunc(func() { logrus.SetOutput(io.Discard) })

// parse lets compose-go read the files. It gets the bytes, and resolves no path: the guest's Docker does.
func (l *load) parse() error {
	quiet()
	config := types.ConfigDetails{WorkingDir: path.Join(l.Project, l.dir), ConfigFiles: l.files, Environment: l.env}
	project, err := loadProject(config, func(o *loader.Options) {
		o.SetProjectName(l.projectName(), true)
		o.ResolvePaths, o.SkipResolveEnvironment, o.SkipResolveLabels = false, true, true
		o.ResourceLoaders = []loader.ResourceLoader{l}
		o.Profiles = []string{"*"} // stack chooses
		o.MaxNodeVisits = maxNodes
		o.Interpolate.Substitute = l.substitute
		o.Interpolate.TypeCastMapping = maps.Clone(o.Interpolate.TypeCastMapping)
		o.Interpolate.TypeCastMapping[tree.NewPath(tree.PathMatchAll, tree.PathMatchAll, "ports", tree.PathMatchList)] = l.spent.ports
	})
	if err != nil {
		return shown(l.named(err))
	}
	if len(project.Services) > maxServices {
		return fmt.Errorf("more than %d services", maxServices)
	}
	for name := range project.Services {
		if strings.HasPrefix(name, "-") {
			return fmt.Errorf("the service %.200q: docker compose would read its name as an option", name)
		}
	}
	own, ok := project.Services[l.Service]
	if !ok {
		return fmt.Errorf("there is no service %.200q in %s, but %s", l.Service, strings.Join(l.Files, ", "), strings.Join(slices.Sorted(maps.Keys(project.Services)), ", "))
	}
	l.project, l.own = project, own
	return nil
}

// loadProject is what loader.LoadWithContext does, with a look at the services before compose-go searches them
// for circles.
func loadProject(config types.ConfigDetails, options func(*loader.Options)) (*types.Project, error) {
	model, err := loader.LoadModelWithContext(context.Background(), config, options)
	if err != nil {
		return nil, err
	}
	for _, section := range []string{"services", "jobs"} {
		services, _ := model[section].(map[string]any)
		if err := ways(services); err != nil {
			return nil, err
		}
	}
	return loader.ModelToProject(model, loader.ToOptions(&config, []func(*loader.Options){options}), config)
}

// projectName returns the name that Compose gives the project, as the reference implementation of
// devcontainer.json chooses it: so `docker compose ps` in that folder shows these services.
func (l *load) projectName() string {
	name := l.name
	if strings.Contains(name, "$") {
		name = ""
	}
	base := path.Base(path.Join(l.Project, l.dir))
	switch {
	case name != "":
	case base == ".devcontainer":
		name = path.Base(path.Dir(path.Join(l.Project, l.dir))) + "_devcontainer"
	default:
		name = base
	}
	if name = loader.NormalizeProjectName(name); name == "" {
		name = "devcontainer"
	}
	return name[:min(len(name), maxName)]
}

// maxName bounds the name of the project, in bytes.
const maxName = 60

// substitute replaces the variables of a text by their values. One without a value is its default, or
// nothing, which is noted.
func (l *load) substitute(text string, values template.Mapping) (string, error) {
	if err := l.spent.substitution(text); err != nil {
		return "", err
	}
	var tooLong error
	lookup := func(name string) (string, bool) {
		value, ok := values(name)
		l.used[name] = true
		if err := l.spent.search(len(value)); err != nil {
			tooLong = err
			return "", true
		}
		return value, ok
	}
	out, err := template.SubstituteWithOptions(text, lookup, template.WithoutLogging,
		template.WithReplacementFunction(func(ref string, values template.Mapping, config *template.Config) (string, error) {
			l.note(ref, values)
			return template.DefaultReplacementFunc(ref, values, config)
		}))
	var missing *template.MissingRequiredError
	switch {
	case tooLong != nil:
		return "", tooLong
	case errors.As(err, &missing) && len(l.kept) > 0:
		return "", fmt.Errorf("%w (%s is hidden from the sandbox, so no value of it is taken: bawn trust --devcontainer --env-file FILE takes them)", err, strings.Join(l.kept, ", "))
	case err != nil:
		return "", err
	case len(out) > max(len(text), maxText):
		return "", fmt.Errorf("a text of more than %d bytes, with the values of its variables", maxText)
	}
	return out, l.spent.values(max(0, len(out)-len(text)) / valueBytes)
}

// note notes the variable of a reference that has neither a value nor a default.
func (l *load) note(ref string, values template.Mapping) {
	m := template.DefaultPattern.FindStringSubmatch(ref)
	if m == nil {
		return
	}
	name := m[template.DefaultPattern.SubexpIndex("named")]
	if name == "" {
		name = m[template.DefaultPattern.SubexpIndex("braced")]
	}
	if end := strings.IndexAny(name, ":-+?"); end >= 0 || name == "" {
		return // the file says what is without the variable, or that it is an error
	}
	if _, ok := values(name); !ok {
		l.unset[name] = true
	}
}
