package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// collection is a kind of custom resource, as its API calls it.
type collection struct {
	group, version, plural string
}

func (k collection) all() string { return fmt.Sprintf("/apis/%s/%s/%s", k.group, k.version, k.plural) }

// of is the path of one object.
func (k collection) of(obj object) string {
	return pathIn(k.group, k.version, str(obj, "metadata", "namespace"), k.plural) + "/" + str(obj, "metadata", "name")
}

// pathIn is the path of a collection in a namespace, or of a cluster-wide one.
func pathIn(group, version, namespace, plural string) string {
	parts := []string{"/apis", group, version}
	if namespace != "" {
		parts = append(parts, "namespaces", namespace)
	}
	return strings.Join(append(parts, plural), "/")
}

// verdict is the condition that an operator gives its resources once it has seen them.
type verdict struct {
	kind                     collection
	condition, reason, words string
}

// operate plays the operator that STANDIN_OPERATOR names, and serves its ports.
func operate(ctx context.Context) error {
	name := os.Getenv("STANDIN_OPERATOR")
	go func() { _ = application(ctx, name) }()
	return inCluster(ctx, func(ctx context.Context, c *client) error {
		work, err := operatorOf(name, c)
		if err != nil {
			return err
		}
		repeat(ctx, 2*time.Second, func() error { return work(ctx) })
		return nil
	})
}

func operatorOf(name string, c *client) (func(context.Context) error, error) {
	switch name {
	case "cert-manager":
		return (&certManager{c: c}).once, nil
	case "prometheus":
		return (&prometheus{c, os.Getenv("STANDIN_IMAGE")}).once, nil
	case "origin-ca-issuer":
		cloudflare := "cert-manager.k8s.cloudflare.com"
		return judging(c,
			verdict{collection{cloudflare, "v1", "originissuers"}, "Ready", "Verified", "OriginIssuer verified"},
			verdict{collection{cloudflare, "v1", "clusteroriginissuers"}, "Ready", "Verified", "OriginIssuer verified"},
		), nil
	case "k8up":
		return judging(c, verdict{collection{"k8up.io", "v1", "schedules"}, "Ready", "Ready", "resource is ready"}), nil
	}
	return nil, fmt.Errorf("STANDIN_OPERATOR: no operator is called %q", name)
}

func judging(c *client, verdicts ...verdict) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, v := range verdicts {
			if err := v.apply(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
}

// apply gives the condition to every object that does not have it for its newest generation.
func (v verdict) apply(ctx context.Context, c *client) error {
	found, err := listed(ctx, c, v.kind)
	if err != nil {
		return err
	}
	for _, obj := range found {
		if conditionAt(obj, v.condition) == "True" {
			continue
		}
		given := condition(obj, v.condition, "True", v.reason, v.words)
		if err := putStatus(ctx, c, v.kind, obj, object{"conditions": []object{given}}); err != nil {
			return err
		}
	}
	return nil
}

// listed is empty for a kind that the cluster does not know (yet).
func listed(ctx context.Context, c *client, kind collection) ([]object, error) {
	found, err := c.list(ctx, kind.all())
	if hasCode(err, 404) {
		return nil, nil
	}
	return found, err
}

// putStatus writes a part of the status; an object that is gone meanwhile is no error.
func putStatus(ctx context.Context, c *client, kind collection, obj, status object) error {
	err := c.merge(ctx, kind.of(obj)+"/status", object{"status": status})
	if hasCode(err, 404) {
		return nil
	}
	return err
}

// conditionAt is the status of a condition of the object's newest generation, or empty.
func conditionAt(obj object, kind string) string {
	all, _ := dig(obj, "status", "conditions").([]any)
	for _, one := range all {
		if str(one, "type") == kind && number(one, "observedGeneration") == number(obj, "metadata", "generation") {
			return str(one, "status")
		}
	}
	return ""
}

func condition(obj object, kind, status, reason, words string) object {
	return object{
		"type":               kind,
		"status":             status,
		"reason":             reason,
		"message":            words,
		"lastTransitionTime": time.Now().UTC().Format(time.RFC3339),
		"observedGeneration": number(obj, "metadata", "generation"),
	}
}
