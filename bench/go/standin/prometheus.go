package main

import (
	"context"
	"fmt"
)

// prometheus plays the Prometheus operator: a StatefulSet and a Service for each Prometheus and Alertmanager.
type prometheus struct {
	c     *client
	image string
}

// monitored is one of the two kinds, and what becomes of it.
type monitored struct {
	kind    collection
	name    string // as in Kind, and in lower case of what it makes
	prefix  string
	service string
	port    int
}

func (p *prometheus) once(ctx context.Context) error {
	for _, m := range []monitored{
		{collection{"monitoring.coreos.com", "v1", "prometheuses"}, "Prometheus", "prometheus", "prometheus-operated", 9090},
		{collection{"monitoring.coreos.com", "v1", "alertmanagers"}, "Alertmanager", "alertmanager", "alertmanager-operated", 9093},
	} {
		found, err := listed(ctx, p.c, m.kind)
		if err != nil {
			return err
		}
		for _, obj := range found {
			if err := p.reconcile(ctx, m, obj); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *prometheus) reconcile(ctx context.Context, m monitored, obj object) error {
	namespace := str(obj, "metadata", "namespace")
	name := m.prefix + "-" + str(obj, "metadata", "name")
	sets := pathIn("apps", "v1", namespace, "statefulsets")
	set, err := p.c.get(ctx, sets+"/"+name)
	replicas := replicasOf(obj)
	switch {
	case hasCode(err, 404):
		err = p.c.create(ctx, "/api/v1/namespaces/"+namespace+"/services", m.headless(obj))
		if err != nil && !hasCode(err, 409) {
			return err
		}
		return p.c.create(ctx, sets, m.statefulSet(obj, name, p.image))
	case err != nil:
		return err
	case number(set, "spec", "replicas") != replicas:
		return p.c.merge(ctx, sets+"/"+name, object{"spec": object{"replicas": replicas}})
	}
	return p.report(ctx, m, obj, number(set, "status", "availableReplicas"), replicas)
}

// report keeps the status of the custom resource in step with its pods.
func (p *prometheus) report(ctx context.Context, m monitored, obj object, available, wanted int64) error {
	status, reason, words := "True", "", ""
	if available < wanted {
		status, reason = "False", "NoPodReady"
		words = fmt.Sprintf("%d of %d pods are available", available, wanted)
	}
	if conditionAt(obj, "Available") == status && number(obj, "status", "availableReplicas") == available {
		return nil
	}
	return putStatus(ctx, p.c, m.kind, obj, object{
		"availableReplicas":   available,
		"replicas":            wanted,
		"updatedReplicas":     wanted,
		"unavailableReplicas": wanted - available,
		"paused":              false,
		"conditions": []object{
			condition(obj, "Available", status, reason, words),
			condition(obj, "Reconciled", "True", "", ""),
		},
	})
}

func replicasOf(obj object) int64 {
	if value, ok := dig(obj, "spec", "replicas").(float64); ok {
		return int64(value)
	}
	return 1
}

func (m monitored) labels(obj object) object {
	return object{
		"app.kubernetes.io/name":       m.prefix,
		"app.kubernetes.io/instance":   str(obj, "metadata", "name"),
		"app.kubernetes.io/managed-by": "prometheus-operator",
		m.prefix:                       str(obj, "metadata", "name"),
	}
}

// owned is metadata of something that goes when obj goes.
func (m monitored) owned(obj object, name string) object {
	return object{
		"name":      name,
		"namespace": str(obj, "metadata", "namespace"),
		"labels":    m.labels(obj),
		"ownerReferences": []object{{
			"apiVersion": m.kind.group + "/" + m.kind.version, "kind": m.name, "controller": true,
			"blockOwnerDeletion": true, "name": str(obj, "metadata", "name"), "uid": str(obj, "metadata", "uid"),
		}},
	}
}

func (m monitored) headless(obj object) object {
	return object{
		"apiVersion": "v1",
		"kind":       "Service",
		"metadata":   m.owned(obj, m.service),
		"spec": object{
			"clusterIP": "None",
			"selector":  object{"app.kubernetes.io/name": m.prefix},
			"ports":     []object{{"name": "http-web", "port": m.port, "targetPort": "http-web"}},
		},
	}
}

func (m monitored) statefulSet(obj object, name, image string) object {
	volume := name + "-db"
	labels := m.labels(obj)
	spec := object{
		"serviceName":         m.service,
		"replicas":            replicasOf(obj),
		"podManagementPolicy": "Parallel",
		"selector":            object{"matchLabels": labels},
	}
	pod := m.pod(volume, image)
	spec["template"] = object{"metadata": object{"labels": labels}, "spec": pod}
	if claim, ok := dig(obj, "spec", "storage", "volumeClaimTemplate").(object); ok {
		metadata := object{"name": volume}
		if annotations := dig(claim, "metadata", "annotations"); annotations != nil {
			metadata["annotations"] = annotations
		}
		spec["volumeClaimTemplates"] = []object{{
			"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim["spec"],
		}}
	} else {
		pod["volumes"] = []object{{"name": volume, "emptyDir": object{}}}
	}
	return object{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": m.owned(obj, name), "spec": spec}
}

func (m monitored) pod(volume, image string) object {
	return object{
		"automountServiceAccountToken": false,
		"securityContext": object{
			"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 2000, "seccompProfile": object{"type": "RuntimeDefault"},
		},
		"containers": []object{{
			"name":         m.prefix,
			"image":        image,
			"env":          []object{{"name": "STANDIN_PORTS", "value": fmt.Sprint(m.port)}},
			"ports":        []object{{"name": "http-web", "containerPort": m.port}},
			"resources":    object{"requests": object{"cpu": "1m", "memory": "8Mi"}},
			"volumeMounts": []object{{"name": volume, "mountPath": "/" + m.prefix}},
			"securityContext": object{
				"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
				"capabilities": object{"drop": []string{"ALL"}},
			},
		}},
	}
}
