package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/server"
	"funoffshore.bench/k3s/internal/settings"
	"sigs.k8s.io/yaml"
)

// operations are the verbs of "k3s etcd-snapshot", and what the server calls them.
func operations() map[string]string {
	return map[string]string{
		"save": "save", "ls": "list", "list": "list", "l": "list", "delete": "delete", "prune": "prune",
	}
}

// Snapshots is "k3s etcd-snapshot save|ls|delete|prune"; the server on this node does the work.
func Snapshots(ctx context.Context, console Console, p paths.Paths, words []string) error {
	set, err := settings.Read("etcd-snapshot", words, p.Config(), console.Environment)
	if err != nil {
		return err
	}
	for _, key := range set.Skipped {
		console.Journal.Warn("Unknown flag --%s found in config.yaml, skipping", key)
	}
	p = paths.FromEnvironment(set.Text("data-dir", ""))
	for _, key := range []string{"etcd-s3", "etcd-snapshot-compress"} {
		if set.Bool(key) {
			console.Journal.Warn("--%s is not supported by the bench's stand-in for K3s", key)
		}
	}
	request, err := asked(set)
	if err != nil {
		return err
	}
	if request.Operation == "list" {
		return listSnapshots(ctx, console, p, request, set.Text("output", ""))
	}
	var done server.SnapshotResult
	if err := supervisor(ctx, p, http.MethodPost, "/db/snapshot", request, &done); err != nil {
		return err
	}
	for _, name := range done.Created {
		console.Journal.Info("Snapshot %s saved.", name)
	}
	for _, name := range done.Deleted {
		console.Journal.Info("Snapshot %s deleted.", name)
	}
	for _, name := range request.Name {
		if request.Operation == "delete" && !slices.Contains(done.Deleted, name) {
			console.Journal.Warn("Snapshot %s not found.", name)
		}
	}
	return nil
}

// asked makes the request of a command line.
func asked(set settings.Settings) (server.SnapshotRequest, error) {
	verb, rest := "save", set.Words
	if len(rest) > 0 {
		verb, rest = rest[0], rest[1:]
	}
	request := server.SnapshotRequest{Operation: operations()[verb]}
	if folder := set.Text("etcd-snapshot-dir", ""); folder != "" {
		request.Dir = &folder
	}
	if kept, err := strconv.Atoi(set.Text("etcd-snapshot-retention", "")); err == nil {
		request.Retention = &kept
	}
	switch request.Operation {
	case "":
		return request, journal.Fatalf("Error: No help topic for '%s'", verb)
	case "delete":
		if request.Name = rest; len(rest) == 0 {
			return request, journal.Fatalf("Error: no snapshots given for removal")
		}
	default:
		request.Name = []string{set.Text("name", set.Text("etcd-snapshot-name", ""))}
		if len(rest) > 0 {
			return request, journal.Fatalf("Error: this command does not take any arguments")
		}
	}
	return request, nil
}

func listSnapshots(
	ctx context.Context, console Console, p paths.Paths, request server.SnapshotRequest, format string,
) error {
	if !slices.Contains([]string{"", "json", "yaml", "table"}, format) {
		return journal.Fatalf("Error: invalid output format: %s", format)
	}
	var found kube.Object
	if err := supervisor(ctx, p, http.MethodPost, "/db/snapshot", request, &found); err != nil {
		return err
	}
	switch format {
	case "json":
		return json.NewEncoder(console.Out).Encode(found)
	case "yaml":
		content, err := yaml.Marshal(found)
		if err == nil {
			_, err = console.Out.Write(content)
		}
		return err
	}
	table := tabwriter.NewWriter(console.Out, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintln(table, "Name\tLocation\tSize\tCreated")
	for _, file := range kube.Objects(found, "items") {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", kube.Text(file, "spec", "snapshotName"),
			kube.Text(file, "spec", "location"), kube.Text(file, "status", "size"), kube.Text(file, "status", "creationTime"))
	}
	return table.Flush()
}

// Usage is what "k3s --help" prints.
func Usage() {
	_, _ = fmt.Fprint(os.Stdout, `NAME:
   k3s - funoffshore's bench stand-in for K3s: real servers, not the real program

USAGE:
   k3s [global options] command [command options]

COMMANDS:
   server           Run management server
   agent            Run node agent
   kubectl          Run kubectl
   ctr              Run ctr
   etcd-snapshot    Manage etcd snapshots
   secrets-encrypt  Control secrets encryption (status only)
   certificate      Manage K3s certificates (check, rotate)
   token            Manage tokens
`)
}
