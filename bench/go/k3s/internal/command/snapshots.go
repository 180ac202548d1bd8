package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/server"
	"funoffshore.bench/k3s/internal/settings"
)

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
	verb := "save"
	if len(set.Words) > 0 {
		verb = set.Words[0]
	}
	for _, key := range []string{"etcd-s3", "etcd-snapshot-compress"} {
		if set.Bool(key) {
			console.Journal.Warn("--%s is not supported by the bench's stand-in for K3s", key)
		}
	}
	retention, _ := strconv.Atoi(set.Text("etcd-snapshot-retention", "5"))
	request := server.SnapshotRequest{
		Name: set.Text("name", set.Text("etcd-snapshot-name", "")),
		Dir:  set.Text("etcd-snapshot-dir", ""), Retention: retention,
	}
	operations := map[string]string{
		"save": "save", "ls": "list", "list": "list", "l": "list", "delete": "delete", "prune": "prune",
	}
	operation, known := operations[verb]
	if !known {
		return journal.Fatalf("Error: No help topic for '%s'", verb)
	}
	request.Operation = operation
	if verb == "delete" {
		request.Names = set.Words[1:]
	}
	var found []server.SnapshotFile
	if err := supervisor(ctx, p, http.MethodPost, "/db/snapshot", request, &found); err != nil {
		return err
	}
	return show(console, operation, set.Text("output", ""), found)
}

func show(console Console, operation, format string, found []server.SnapshotFile) error {
	switch operation {
	case "save":
		for _, file := range found {
			console.Journal.Info("Snapshot %s saved.", file.Name)
		}
		return nil
	case "delete", "prune":
		for _, file := range found {
			console.Journal.Info("Snapshot %s deleted.", file.Name)
		}
		return nil
	}
	if format == "json" {
		items := []kube.Object{}
		for _, file := range found {
			items = append(items, file.Object())
		}
		list := kube.Object{"kind": "List", "apiVersion": "v1", "metadata": kube.Object{}, "items": items}
		return json.NewEncoder(console.Out).Encode(list)
	}
	table := tabwriter.NewWriter(console.Out, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintln(table, "Name\tLocation\tSize\tCreated")
	for _, file := range found {
		created := file.Created.UTC().Format(time.RFC3339)
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", file.Name, file.Location, file.Size, created)
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
   certificate      Manage K3s certificates (check only)
   token            Manage tokens
`)
}
