package command

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"funoffshore.bench/k3s/internal/client"
	"funoffshore.bench/k3s/internal/journal"
	"funoffshore.bench/k3s/internal/kube"
	"funoffshore.bench/k3s/internal/paths"
	"funoffshore.bench/k3s/internal/token"
)

const (
	tokenFolder = "/api/v1/namespaces/kube-system/secrets"
	tokenPrefix = "bootstrap-token-"
	tokenGroup  = "system:bootstrappers:k3s:default-node-token"
)

// Tokens is "k3s token create|delete|generate|list|rotate".
func Tokens(ctx context.Context, console Console, p paths.Paths, words []string) error {
	if len(words) == 0 {
		return journal.Fatalf("Error: k3s token create|delete|generate|list|rotate")
	}
	if words[0] == "generate" {
		id, secret := token.Generate()
		_, err := fmt.Fprintf(console.Out, "%s.%s\n", id, secret)
		return err
	}
	if words[0] == "rotate" {
		return rotateToken(ctx, console, p, words[1:])
	}
	api, err := admin(ctx, p)
	if err != nil {
		return err
	}
	switch words[0] {
	case "create":
		return createToken(ctx, console, p, api, words[1:])
	case "list":
		return listTokens(ctx, console, api)
	case "delete":
		return deleteTokens(ctx, console, api, words[1:])
	}
	return journal.Fatalf("Error: No help topic for '%s'", words[0])
}

// rotateToken asks the server for another token. What both are called on the command line everybody on the host can read.
func rotateToken(ctx context.Context, console Console, p paths.Paths, words []string) error {
	const warning = "\033[33mWARNING\033[0m: Recommended to keep a record of the old token. If restoring from a snapshot, " +
		"you must use the token associated with that snapshot."
	_, _ = fmt.Fprintln(console.Out, warning)
	old := option(words, "token", option(words, "t", ""))
	if old == "" {
		content, err := os.ReadFile(p.Server("token"))
		if err != nil {
			return journal.Fatalf("Error: %v", err)
		}
		old = strings.TrimSpace(string(content))
	}
	url := option(words, "server", option(words, "s", "https://127.0.0.1:6443"))
	door, err := client.Open(ctx, url, old, "server")
	if err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	body, err := json.Marshal(map[string]string{"newToken": option(words, "new-token", "")})
	if err != nil {
		return err
	}
	if _, err := door.Send(ctx, http.MethodPut, "/v1-k3s/token", body, nil); err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	time.Sleep(time.Second) // as K3s does, for the other members of etcd
	_, err = fmt.Fprintln(console.Out, "Token rotated, restart k3s nodes with new token")
	return err
}

func createToken(ctx context.Context, console Console, p paths.Paths, api *kube.Client, words []string) error {
	span, err := time.ParseDuration(option(words, "ttl", "24h"))
	if err != nil {
		return journal.Fatalf("Error: invalid value %q for flag -ttl: parse error", option(words, "ttl", ""))
	}
	id, secret := token.Generate()
	data := kube.Object{}
	for key, value := range map[string]string{
		"token-id": id, "token-secret": secret, "description": option(words, "description", ""),
		"expiration":        time.Now().Add(span).UTC().Format(time.RFC3339),
		"auth-extra-groups": tokenGroup, "usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
	} {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	if span == 0 {
		delete(data, "expiration")
	}
	_, err = api.Create(ctx, tokenFolder, kube.Object{
		"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "data": data,
		"metadata": kube.Object{"name": tokenPrefix + id, "namespace": "kube-system"},
	})
	if err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	ca, err := os.ReadFile(p.TLS("server-ca.crt"))
	if err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	_, err = fmt.Fprintln(console.Out, token.FullBootstrap(ca, id, secret))
	return err
}

func listTokens(ctx context.Context, console Console, api *kube.Client) error {
	secrets, err := api.List(ctx, tokenFolder+"?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken")
	if err != nil {
		return journal.Fatalf("Error: %v", err)
	}
	table := tabwriter.NewWriter(console.Out, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
	for _, secret := range secrets {
		span, until := "<forever>", "<never>"
		if end, err := time.Parse(time.RFC3339, kube.Secret(secret, "expiration")); err == nil {
			until = kube.Secret(secret, "expiration")
			if span = left(time.Until(end)); time.Until(end) < 0 {
				span = "<invalid>"
			}
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\tauthentication,signing\t%s\t%s\n", kube.Secret(secret, "token-id"), span,
			until, cmp.Or(kube.Secret(secret, "description"), "<none>"), kube.Secret(secret, "auth-extra-groups"))
	}
	return table.Flush()
}

func deleteTokens(ctx context.Context, console Console, api *kube.Client, words []string) error {
	words = slices.DeleteFunc(words, func(word string) bool { return strings.HasPrefix(word, "-") })
	for _, word := range words {
		id, _, _ := strings.Cut(word, ".")
		path := tokenFolder + "/" + tokenPrefix + id
		if _, err := api.Get(ctx, path); err != nil {
			return journal.Fatalf("Error: failed to delete bootstrap token %q: %v", id, err)
		}
		if err := api.Delete(ctx, path); err != nil {
			return journal.Fatalf("Error: %v", err)
		}
		if _, err := fmt.Fprintf(console.Out, "bootstrap token %q deleted\n", id); err != nil {
			return err
		}
	}
	return nil
}
