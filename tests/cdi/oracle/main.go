// Command cdi-oracle lets the tests ask the CDI reference implementation for its verdicts.
//
// It reads one JSON request a line on standard input and writes one JSON answer a line:
//
//	{"op":"validate","text":"cdiVersion: ..."}              -> {"error":""}
//	{"op":"list","dirs":["/a","/b"]}                        -> {"devices":[...],"errors":{"file":["..."]}}
//	{"op":"inject","dirs":[...],"devices":[...],"oci":{}}   -> {"oci":{},"error":""}
//	{"op":"minimum","text":"..."}                           -> {"version":"0.5.0","error":""}
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Longest request line; the tests' specs are far smaller.
const maxLine = 64 << 20

type request struct {
	Op      string    `json:"op"`
	Text    string    `json:"text"`
	Dirs    []string  `json:"dirs"`
	Devices []string  `json:"devices"`
	OCI     *oci.Spec `json:"oci"`
}

type answer struct {
	Error   string              `json:"error"`
	Devices []string            `json:"devices,omitempty"`
	Errors  map[string][]string `json:"errors,omitempty"`
	OCI     *oci.Spec           `json:"oci,omitempty"`
	Version string              `json:"version,omitempty"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 0, 1<<16), maxLine)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for lines.Scan() {
		var ask request
		reply := answer{}
		if err := json.Unmarshal(lines.Bytes(), &ask); err != nil {
			reply.Error = "bad request: " + err.Error()
		} else {
			reply = respond(ask)
		}
		if err := out.Encode(reply); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func respond(ask request) (reply answer) {
	defer func() {
		if crash := recover(); crash != nil {
			reply = answer{Error: fmt.Sprintf("panic: %v", crash)}
		}
	}()
	var err error
	switch ask.Op {
	case "validate":
		err = validate(ask.Text)
	case "minimum":
		var raw *specs.Spec
		if raw, err = cdi.ParseSpec([]byte(ask.Text)); err == nil {
			reply.Version, err = specs.MinimumRequiredVersion(raw)
		}
	case "list":
		cache := open(ask.Dirs)
		reply.Devices = cache.ListDevices()
		reply.Errors = map[string][]string{}
		for path, faults := range cache.GetErrors() {
			for _, fault := range faults {
				reply.Errors[path] = append(reply.Errors[path], fault.Error())
			}
		}
	case "inject":
		_, err = open(ask.Dirs).InjectDevices(ask.OCI, ask.Devices...)
		reply.OCI = ask.OCI
	case "name":
		_, _, _, err = parser.ParseQualifiedName(ask.Text)
	case "annotation":
		_, err = cdi.AnnotationKey(ask.Devices[0], ask.Devices[1])
	default:
		err = fmt.Errorf("unknown op %q", ask.Op)
	}
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}

func open(dirs []string) *cdi.Cache {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		panic(err)
	}
	return cache
}

func validate(text string) error {
	dir, err := os.MkdirTemp("", "cdi-oracle")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "spec.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	_, err = cdi.ReadSpec(path, 0)
	return err
}
