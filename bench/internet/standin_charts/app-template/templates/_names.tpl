{{/* The entries of a mapping of values that are not switched off, as YAML. */}}
{{- define "app.enabled" -}}
{{- $found := dict }}
{{- range $key, $entry := . }}
{{- if kindIs "map" $entry }}
{{- if or (not (hasKey $entry "enabled")) $entry.enabled }}{{ $_ := set $found $key $entry }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end -}}

{{/* root, group (enabled entries of one sort), key. What is alone of its sort is called like the release. */}}
{{- define "app.name" -}}
{{- $entry := get .group .key | default dict }}
{{- $base := .root.Values.fullnameOverride | default .root.Release.Name }}
{{- if $entry.forceRename -}}
{{ tpl $entry.forceRename .root }}
{{- else -}}
{{- with $entry.prefix }}{{ . }}-{{ end }}{{ $base }}
{{- $suffix := $entry.suffix | default (ternary .key "" (gt (len .group) 1)) }}
{{- with $suffix }}-{{ . }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "app.selector" -}}
app.kubernetes.io/name: {{ .root.Values.nameOverride | default .root.Release.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .controller }}
app.kubernetes.io/controller: {{ . }}
{{- end }}
{{- end -}}

{{- define "app.labels" -}}
{{ include "app.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Claims that the chart makes itself, as YAML: those that nobody else has made. */}}
{{- define "app.claims" -}}
{{- $found := dict }}
{{- range $key, $entry := include "app.enabled" .Values.persistence | fromYaml }}
{{- if and (eq ($entry.type | default "persistentVolumeClaim") "persistentVolumeClaim") (not $entry.existingClaim) }}
{{- $_ := set $found $key $entry }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end -}}

{{/* root, identifier or name: the account that pods use */}}
{{- define "app.account" -}}
{{- if .account.name -}}
{{ .account.name }}
{{- else -}}
{{- include "app.name" (dict "root" .root "group" (include "app.enabled" .root.Values.serviceAccount | fromYaml) "key" .account.identifier) }}
{{- end -}}
{{- end -}}
