{{/* root, key (of the controller), controller */}}
{{- define "app.pod" -}}
{{- $options := merge (deepCopy (.controller.pod | default dict)) (.root.Values.defaultPodOptions | default dict) }}
{{- with omit $options "labels" "annotations" }}
{{- toYaml . }}
{{- end }}
{{- with .controller.serviceAccount }}
serviceAccountName: {{ include "app.account" (dict "root" $.root "account" .) }}
{{- end }}
{{- with .controller.initContainers }}
initContainers:
  {{- range $name, $container := . }}
  {{- include "app.container" (dict "root" $.root "key" $.key "name" $name "container" $container "ports" list) | nindent 2 }}
  {{- end }}
{{- end }}
containers:
  {{- range $name, $container := .controller.containers }}
  {{- $ports := list }}
  {{- if eq (len $.controller.containers) 1 }}
  {{- $ports = include "app.serviceports" $ | fromYamlArray }}
  {{- end }}
  {{- include "app.container" (dict "root" $.root "key" $.key "name" $name "container" $container "ports" $ports) | nindent 2 }}
  {{- end }}
{{- include "app.volumes" . }}
{{- end -}}

{{/* Ports that Services expect of this controller's pods, as a YAML list. */}}
{{- define "app.serviceports" -}}
{{- $found := list }}
{{- range include "app.enabled" .root.Values.service | fromYaml }}
{{- if or (not .controller) (eq .controller $.key) }}
{{- range .ports }}
{{- $number := .targetPort | default .port }}
{{- if and (ne (.protocol | default "TCP") "UDP") (not (kindIs "string" $number)) }}{{ $found = append $found (int $number) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end -}}

{{/* root, key, name, container, ports. Requests and limits of the values are ignored: the bench's hosts are small. */}}
{{- define "app.container" -}}
{{- $made := pick .container "command" "args" "workingDir" "lifecycle" "securityContext" "ports" }}
{{- $ports := list }}
{{- range .ports }}{{ $ports = append $ports (int .) }}{{ end }}
{{- range $kind, $probe := .container.probes }}
{{- if and $probe.enabled $probe.custom }}
{{- $_ := set $made (printf "%sProbe" $kind) $probe.spec }}
{{- with ($probe.spec.httpGet | default $probe.spec.tcpSocket) }}{{ $ports = append $ports (int .port) }}{{ end }}
{{- end }}
{{- end }}
{{- $_ := set $made "resources" (dict "requests" (dict "cpu" "1m" "memory" "8Mi")) }}
{{- $mounts := include "app.mounts" . | fromYamlArray }}
{{- with $mounts }}{{ $_ := set $made "volumeMounts" . }}{{ end -}}
- name: {{ .name }}
  image: {{ printf "%s:%v" .container.image.repository (.container.image.tag | default "latest") }}
  env:
    - name: STANDIN_PORTS
      value: {{ join "," ($ports | uniq) | quote }}
    {{- include "app.environment" .container.env | nindent 4 }}
  {{- with .container.envFrom }}
  envFrom:
    {{- include "app.sources" . | nindent 4 }}
  {{- end }}
  {{- toYaml $made | nindent 2 }}
{{- end -}}

{{- define "app.environment" -}}
{{- if kindIs "slice" . }}
{{- toYaml . }}
{{- else }}
{{- range $name, $value := . }}
- name: {{ $name }}
  {{- if kindIs "map" $value }}
  {{- toYaml $value | nindent 2 }}
  {{- else }}
  value: {{ $value | toString | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "app.sources" -}}
{{- range . }}
{{- if .secret }}
- secretRef:
    name: {{ .secret }}
{{- else if .configMap }}
- configMapRef:
    name: {{ .configMap }}
{{- else }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the container mounts, as a YAML list: everywhere unless its controller and name are said. */}}
{{- define "app.mounts" -}}
{{- $found := list }}
{{- range $volume, $entry := include "app.enabled" .root.Values.persistence | fromYaml }}
{{- $places := $entry.globalMounts }}
{{- if $entry.advancedMounts }}
{{- $places = get (get $entry.advancedMounts $.key | default dict) $.name | default list }}
{{- else if not $places }}
{{- $places = list (dict "path" (printf "/%s" $volume)) }}
{{- end }}
{{- range $places }}
{{- $mount := dict "name" $volume "mountPath" (.path | default (printf "/%s" $volume)) }}
{{- if .readOnly }}{{ $_ := set $mount "readOnly" true }}{{ end }}
{{- with .subPath }}{{ $_ := set $mount "subPath" . }}{{ end }}
{{- $found = append $found $mount }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end -}}

{{/* root, key, controller */}}
{{- define "app.volumes" -}}
{{- $found := list }}
{{- range $volume, $entry := include "app.enabled" .root.Values.persistence | fromYaml }}
{{- if or (not $entry.advancedMounts) (hasKey ($entry.advancedMounts | default dict) $.key) }}
{{- $made := dict "name" $volume }}
{{- $kind := $entry.type | default "persistentVolumeClaim" }}
{{- if eq $kind "persistentVolumeClaim" }}
{{- $own := include "app.name" (dict "root" $.root "group" (include "app.claims" $.root | fromYaml) "key" $volume) }}
{{- $_ := set $made $kind (dict "claimName" ($entry.existingClaim | default $own)) }}
{{- else if eq $kind "emptyDir" }}
{{- $_ := set $made $kind (pick $entry "sizeLimit" "medium") }}
{{- else if eq $kind "configMap" }}
{{- $_ := set $made $kind (merge (dict "name" (include "app.reference" (dict "root" $.root "entry" $entry "values" $.root.Values.configMaps))) (pick $entry "defaultMode" "items")) }}
{{- else if eq $kind "secret" }}
{{- $_ := set $made $kind (merge (dict "secretName" (include "app.reference" (dict "root" $.root "entry" $entry "values" $.root.Values.secrets))) (pick $entry "defaultMode" "items")) }}
{{- else if eq $kind "nfs" }}
{{- $_ := set $made $kind (pick $entry "server" "path") }}
{{- else if eq $kind "hostPath" }}
{{- $_ := set $made $kind (dict "path" $entry.hostPath "type" ($entry.hostPathType | default "")) }}
{{- else }}
{{- fail (printf "this stand-in cannot make volumes of type %s" $kind) }}
{{- end }}
{{- $found = append $found $made }}
{{- end }}
{{- end }}
{{- with $found }}
volumes:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* root, entry (with name or identifier), values (of what the chart makes itself) */}}
{{- define "app.reference" -}}
{{- if .entry.name -}}
{{ tpl .entry.name .root }}
{{- else -}}
{{- include "app.name" (dict "root" .root "group" (include "app.enabled" .values | fromYaml) "key" .entry.identifier) }}
{{- end -}}
{{- end -}}
