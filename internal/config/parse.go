package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxFileSize bounds what is read: the longest sensible file has some hundred
// lines, and a wrong path should not fill the memory.
const maxFileSize = 1 << 20

// Load reads a file and takes variables from the environment. Faults of the file
// come as *Error.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %q: %w", path, err)
	}
	return Parse(path, data, os.LookupEnv)
}

// Parse reads the text of a file. The name is for messages, and relative paths
// in the text are relative to its directory. env looks variables up, as
// os.LookupEnv does. The error is an *Error with every fault.
func Parse(name string, data []byte, env func(string) (string, bool)) (*Config, error) {
	c := Default()
	c.file = name
	c.at = map[string]place{}
	d := &decoder{faults: faults{file: name}, env: env, dir: filepath.Dir(name), at: c.at}
	if root := d.document(data); root != nil {
		d.config(root, c)
		c.order = d.order
		c.validate(&d.faults)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// yamlLine finds the line in the message of a YAML syntax error: yaml.v3 gives it
// in the text alone.
var yamlLine = regexp.MustCompile(`^line (\d+): `)

// document is the root of the file's only document; nil with a fault added where
// there is none.
func (d *decoder) document(data []byte) *yaml.Node {
	if len(data) > maxFileSize {
		d.add(place{}, "", "the file is larger than %s: is this the right file?", Bytes(maxFileSize))
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.add(place{}, "", "the file is empty: start from config.example.yaml")
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(err)
		return nil
	default:
		d.add(placeOf(&more), "", "a second document begins here: a configuration is one document, remove the ---")
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		d.add(place{}, "", "the file is empty: start from config.example.yaml")
		return nil
	}
	return doc.Content[0]
}

func (d *decoder) syntax(err error) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	var at place
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		at.line, _ = strconv.Atoi(m[1]) // digits by the expression; a line too long for an int stays 0
		msg = msg[len(m[0]):]
	}
	d.add(at, "", "not YAML: %s", msg)
}
