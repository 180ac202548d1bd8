package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeAPI keeps objects by path, and knows as much of the API server as the stand-in uses.
type fakeAPI struct {
	mu      sync.Mutex
	objects map[string]object
	version int
	writes  []string
}

func newFake(t *testing.T, objects map[string]object) (*fakeAPI, *client) {
	t.Helper()
	fake := &fakeAPI{objects: objects}
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// the first address leads nowhere, as a Service does without kube-proxy
	return fake, &client{http: server.Client(), bases: []string{"http://127.0.0.1:1", server.URL}, token: token}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var body object
	_ = json.NewDecoder(r.Body).Decode(&body)
	path := strings.TrimSuffix(r.URL.Path, "/status")
	if r.Method != http.MethodGet {
		f.writes = append(f.writes, r.Method+" "+r.URL.Path)
	}
	code, answer := f.serve(r.Method, path, body)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

func (f *fakeAPI) serve(method, path string, body object) (int, any) {
	there := f.objects[path]
	switch method {
	case http.MethodGet:
		if there != nil {
			return 200, there
		}
		return f.collection(path)
	case http.MethodPost:
		path += "/" + str(body, "metadata", "name")
		if f.objects[path] != nil {
			return 409, object{"message": "already exists"}
		}
		f.put(path, body)
		return 201, body
	case http.MethodPut:
		if there == nil || str(there, "metadata", "resourceVersion") != str(body, "metadata", "resourceVersion") {
			return 409, object{"message": "the object has been modified"}
		}
		f.put(path, body)
		return 200, body
	case http.MethodPatch:
		merged := mergeInto(there, body)
		f.put(path, merged)
		return 200, merged
	default:
		delete(f.objects, path)
		return 200, object{}
	}
}

func (f *fakeAPI) put(path string, obj object) {
	f.version++
	obj["metadata"].(object)["resourceVersion"] = fmt.Sprint(f.version)
	f.objects[path] = obj
}

// collection lists what lies at one segment below path, or in the namespaces of a cluster-wide path.
func (f *fakeAPI) collection(path string) (int, any) {
	items, known := []object{}, false
	plural := path[strings.LastIndex(path, "/"):]
	for at, obj := range f.objects {
		folder := at[:strings.LastIndex(at, "/")]
		wide := strings.HasPrefix(folder, strings.TrimSuffix(path, plural)+"/namespaces/") && strings.HasSuffix(folder, plural)
		if folder == path || wide {
			items, known = append(items, obj), true
		}
	}
	if !known && strings.Count(path, "/") > 4 {
		return 404, object{"message": "not found"}
	}
	return 200, object{"items": items}
}

func mergeInto(to, patch object) object {
	if to == nil {
		to = object{}
	}
	for key, value := range patch {
		if inner, ok := value.(object); ok {
			before, _ := to[key].(object)
			to[key] = mergeInto(before, inner)
		} else {
			to[key] = value
		}
	}
	return to
}
