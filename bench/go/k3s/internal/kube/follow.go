package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Text is the string at the end of keys, or empty.
func Text(object Object, keys ...string) string {
	text, _ := At(object, keys...).(string)
	return text
}

// At is the value at the end of keys, or nil.
func At(object Object, keys ...string) any {
	var here any = object
	for _, key := range keys {
		table, ok := here.(map[string]any)
		if !ok {
			return nil
		}
		here = table[key]
	}
	return here
}

// Objects is the list at the end of keys, reduced to what are objects.
func Objects(object Object, keys ...string) []Object {
	many, _ := At(object, keys...).([]any)
	var found []Object
	for _, one := range many {
		if table, ok := one.(map[string]any); ok {
			found = append(found, table)
		}
	}
	return found
}

// Strings is the list of texts at the end of keys.
func Strings(object Object, keys ...string) []string {
	many, _ := At(object, keys...).([]any)
	var found []string
	for _, one := range many {
		if text, ok := one.(string); ok {
			found = append(found, text)
		}
	}
	return found
}

// Address is a Node's InternalIP, or empty.
func Address(node Object) string {
	for _, address := range Objects(node, "status", "addresses") {
		if Text(address, "type") == "InternalIP" {
			return Text(address, "address")
		}
	}
	return ""
}

// Condition is the status of a Node's condition, or empty.
func Condition(node Object, kind string) string {
	for _, condition := range Objects(node, "status", "conditions") {
		if Text(condition, "type") == kind {
			return Text(condition, "status")
		}
	}
	return ""
}

// Follow calls seen with everything in the collection at path, at first and after each burst of changes, until ctx
// ends. Failures are waited out.
func (c *Client) Follow(ctx context.Context, path string, seen func([]Object)) {
	for ctx.Err() == nil {
		_ = c.follow(ctx, path, seen)
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func (c *Client) follow(ctx context.Context, path string, seen func([]Object)) error {
	listed := struct {
		Metadata struct{ ResourceVersion string }
		Items    []Object
	}{}
	if err := c.Do(ctx, http.MethodGet, path, "", nil, &listed); err != nil {
		return err
	}
	objects := map[string]Object{}
	for _, item := range listed.Items {
		objects[key(item)] = item
	}
	seen(slices.Collect(maps.Values(objects)))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, failed := make(chan event), make(chan error, 1)
	go func() { failed <- c.watch(ctx, path, listed.Metadata.ResourceVersion, events) }()
	var settle <-chan time.Time
	for {
		select {
		case err := <-failed:
			return err
		case <-settle:
			settle = nil
			seen(slices.Collect(maps.Values(objects)))
		case one := <-events:
			if one.Type == "DELETED" {
				delete(objects, key(one.Object))
			} else {
				objects[key(one.Object)] = one.Object
			}
			if settle == nil {
				settle = time.After(200 * time.Millisecond)
			}
		}
	}
}

type event struct {
	Type   string
	Object Object
}

func (c *Client) watch(ctx context.Context, path, version string, events chan<- event) error {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	question := fmt.Sprintf("%s%swatch=1&timeoutSeconds=600&resourceVersion=%s", path, separator, version)
	body, err := c.open(ctx, http.MethodGet, question, "", nil)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	answers := json.NewDecoder(body)
	for {
		var one event
		if err := answers.Decode(&one); err != nil {
			return err
		}
		if one.Type == "ERROR" {
			return errors.New(Text(one.Object, "message"))
		}
		select {
		case events <- one:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func key(object Object) string {
	return Text(object, "metadata", "namespace") + "/" + Text(object, "metadata", "name")
}

// Secret is a decoded value of a Secret.
func Secret(secret Object, name string) string {
	content, err := base64.StdEncoding.DecodeString(Text(secret, "data", name))
	if err != nil {
		return ""
	}
	return string(content)
}
