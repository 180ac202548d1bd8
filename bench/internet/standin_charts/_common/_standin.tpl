{{/* Parts of which all stand-in charts are made. Each takes a dict; "root" is the chart's own context. */}}

{{- define "standin.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "standin.image" -}}
registry.bench.internal/standin/{{ .Chart.Name }}:{{ .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* root, and optional label (of the application) and component */}}
{{- define "standin.selector" -}}
app.kubernetes.io/name: {{ .label | default .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "standin.labels" -}}
{{ include "standin.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* root, name; optional kind, label, component, replicas, ports (of name and port), operator, command, environment,
     secrets, configMaps, claims (names of each), storage (a volume claim template), account, tolerations, priority,
     annotations, hostNetwork, root user */}}
{{- define "standin.workload" }}
{{- $kind := .kind | default "Deployment" }}
---
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "standin.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if ne $kind "DaemonSet" }}
  replicas: {{ if hasKey . "replicas" }}{{ int .replicas }}{{ else }}1{{ end }}
  {{- end }}
  {{- if eq $kind "StatefulSet" }}
  serviceName: {{ .serviceName | default .name }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "standin.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "standin.labels" . | nindent 8 }}
    spec:
      {{- include "standin.pod" . | nindent 6 }}
  {{- with .storage }}
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end }}

{{- define "standin.pod" -}}
{{- if .account }}
serviceAccountName: {{ .account }}
{{- end }}
automountServiceAccountToken: {{ if or .operator .account }}true{{ else }}false{{ end }}
{{- with .priority }}
priorityClassName: {{ . }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topology }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65534
  runAsGroup: 65534
  fsGroup: 65534
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: {{ .container | default .root.Chart.Name }}
    image: {{ include "standin.image" .root }}
    {{- if .operator }}
    command: [/standin, operator]
    {{- else if .command }}
    command: {{ toJson .command }}
    {{- end }}
    env:
      {{- include "standin.environment" . | nindent 6 }}
    {{- with .secrets }}
    envFrom:
      {{- range . }}
      - secretRef:
          name: {{ . }}
      {{- end }}
    {{- end }}
    {{- with .ports }}
    ports:
      {{- range . }}
      - name: {{ .name }}
        containerPort: {{ int .port }}
      {{- end }}
    readinessProbe:
      httpGet:
        path: /
        port: {{ int (first .).port }}
      periodSeconds: 3
      timeoutSeconds: 3
    {{- end }}
    resources:
      requests: {cpu: 1m, memory: 8Mi}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    {{- include "standin.mounts" . | nindent 4 }}
{{- include "standin.volumes" . }}
{{- end -}}

{{- define "standin.environment" -}}
- name: STANDIN_PORTS
  value: {{ include "standin.portlist" . | quote }}
{{- if .operator }}
- name: STANDIN_OPERATOR
  value: {{ .operator }}
- name: STANDIN_IMAGE
  value: {{ include "standin.image" .root }}
{{- end }}
{{- with .environment }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "standin.portlist" -}}
{{- $numbers := list }}
{{- range .ports }}{{ $numbers = append $numbers (int .port) }}{{ end }}
{{- join "," $numbers }}
{{- end -}}

{{- define "standin.mounts" -}}
{{- if or .claims .configMaps .storage }}
volumeMounts:
  {{- range .claims }}
  - name: {{ printf "claim-%s" . | trunc 63 }}
    mountPath: /data/{{ . }}
  {{- end }}
  {{- range .configMaps }}
  - name: {{ printf "config-%s" . | trunc 63 }}
    mountPath: /config/{{ . }}
  {{- end }}
  {{- with .storage }}
  - name: {{ .metadata.name }}
    mountPath: /data
  {{- end }}
{{- end }}
{{- end -}}

{{- define "standin.volumes" -}}
{{- if or .claims .configMaps }}
volumes:
  {{- range .claims }}
  - name: {{ printf "claim-%s" . | trunc 63 }}
    persistentVolumeClaim:
      claimName: {{ . }}
  {{- end }}
  {{- range .configMaps }}
  - name: {{ printf "config-%s" . | trunc 63 }}
    configMap:
      name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}
