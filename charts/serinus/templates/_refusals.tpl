{{- /*
What no schema can say: values that contradict each other, and settings that would not do what they seem to do in a
cluster. All are told at once, each with what would be right.
*/}}
{{- define "serinus.refusals" -}}
{{- $found := concat
    (include "serinus.refusals.settings" . | fromJsonArray)
    (include "serinus.refusals.secrets" . | fromJsonArray)
    (include "serinus.refusals.replicas" . | fromJsonArray)
    (include "serinus.refusals.around" . | fromJsonArray) }}
{{- if $found }}
{{- fail (printf "these values cannot be installed:\n  - %s" (join "\n  - " $found)) }}
{{- end }}
{{- end }}

{{- define "serinus.refusals.settings" -}}
{{- $found := list }}
{{- $config := .Values.config }}
{{- $admin := $config.admin | default dict }}
{{- if not .Values.image.repository }}
{{- $found = append $found "image.repository is empty: build the image, push it, and name where it is" }}
{{- end }}
{{- range $name, $instead := dict "listen" "ports.proxy, listenHost or tls" "state_dir" "persistence" }}
{{- if hasKey $config $name }}
{{- $found = append $found (printf "config.%s is the chart's to set: remove it, and use %s" $name $instead) }}
{{- end }}
{{- end }}
{{- if hasKey $admin "listen" }}
{{- $found = append $found "config.admin.listen is the chart's to set: remove it, and use ports.admin" }}
{{- end }}
{{- if hasKey $admin "tls" }}
{{- $found = append $found "config.admin.tls is not for Kubernetes, whose probes show no certificate: remove it, and use networkPolicy.adminFrom" }}
{{- end }}
{{- if not $admin.tokens }}
{{- $found = append $found "config.admin.tokens is empty: the probes need the admin port open to the node, so write tokens: [{name: ops, value: file:/run/secrets/SECRET/KEY}]" }}
{{- end }}
{{- if and (not $config.clients) (not $config.allow_anonymous) }}
{{- $found = append $found "config.clients is empty: list who may call, or set config.allow_anonymous: true, and everyone who reaches the service may" }}
{{- end }}
{{- if eq (int .Values.ports.proxy) (int .Values.ports.admin) }}
{{- $found = append $found (printf "ports.proxy and ports.admin are both %v: choose another one" .Values.ports.admin) }}
{{- end }}
{{- $found | toJson }}
{{- end }}

{{- /* All that is a secret, by place: {"upstreams.openai.keys[main]": "env:…"}. */}}
{{- define "serinus.secrets" -}}
{{- $held := dict }}
{{- with .Values.config }}
{{- range (.admin | default dict).tokens }}{{ $_ := set $held (printf "admin.tokens[%s]" .name) .value }}{{ end }}
{{- range .clients }}
{{- $name := .name }}
{{- with .key }}{{ $_ := set $held (printf "clients[%s].key" $name) . }}{{ end }}
{{- range $index, $key := .keys }}{{ $_ := set $held (printf "clients[%s].keys[%d]" $name $index) $key }}{{ end }}
{{- end }}
{{- range $upstream, $settings := .upstreams }}
{{- range $settings.keys }}{{ $_ := set $held (printf "upstreams.%s.keys[%s]" $upstream .name) .value }}{{ end }}
{{- end }}
{{- range $canary, $settings := .canaries }}
{{- range $index, $hook := $settings.webhooks }}
{{- with $hook.secret }}{{ $_ := set $held (printf "canaries.%s.webhooks[%d]" $canary $index) . }}{{ end }}
{{- end }}
{{- end }}
{{- range $index, $key := .master_keys }}{{ $_ := set $held (printf "master_keys[%d]" $index) $key }}{{ end }}
{{- range $name, $value := (.tracing | default dict).headers }}{{ $_ := set $held (printf "tracing.headers.%s" $name) $value }}{{ end }}
{{- with .client_pepper }}{{ $_ := set $held "client_pepper" . }}{{ end }}
{{- end }}
{{- $held | toJson }}
{{- end }}

{{- define "serinus.refusals.secrets" -}}
{{- $found := list }}
{{- $variables := list "SERINUS_MASTER_KEY" }}
{{- range concat .Values.secretEnv .Values.extraEnv }}{{ $variables = append $variables .name }}{{ end }}
{{- range $place, $secret := include "serinus.secrets" . | fromJson }}
{{- if hasPrefix "env:" $secret }}
{{- $name := trimPrefix "env:" $secret }}
{{- if not (or (has $name $variables) $.Values.extraEnvFrom) }}
{{- $found = append $found (printf "config.%s is %s, which no pod has: add it to secretEnv" $place $secret) }}
{{- end }}
{{- else if hasPrefix "file:/run/secrets/" $secret }}
{{- $name := index (splitList "/" $secret) 3 }}
{{- if not (has $name $.Values.secretFiles) }}
{{- $found = append $found (printf "config.%s is %s, and no such Secret is mounted: add %s to secretFiles" $place $secret $name) }}
{{- end }}
{{- else if and (hasPrefix "file:" $secret) (not (hasPrefix "file:/" $secret)) }}
{{- $found = append $found (printf "config.%s is %s, beside the configuration, which is no place for secrets: write file:/run/secrets/SECRET/KEY" $place $secret) }}
{{- else if not (or (hasPrefix "file:/" $secret) (hasPrefix "sealed:" $secret)) }}
{{- $found = append $found (printf "config.%s would stand in a ConfigMap in plain text: put it into a Secret, and write file:/run/secrets/SECRET/KEY or env:NAME" $place) }}
{{- end }}
{{- end }}
{{- range $upstream, $settings := .Values.config.upstreams }}
{{- range $name, $value := $settings.headers }}
{{- if regexMatch "(?i)(auth|authorization|key|token|secret|password|cookie|credential)$" $name }}
{{- $found = append $found (printf "config.upstreams.%s.headers.%s would stand in a ConfigMap in plain text: take it out, and write auth: {header: %s} and a key under keys" $upstream $name $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- $found | toJson }}
{{- end }}

{{- define "serinus.refusals.replicas" -}}
{{- $found := list }}
{{- $replicas := include "serinus.replicas" . | int }}
{{- if and .Values.persistence.enabled (ne .Values.kind "StatefulSet") }}
{{- $found = append $found "persistence is enabled for a Deployment, whose pods would share one state_dir, which one process holds at a time: set kind: StatefulSet" }}
{{- end }}
{{- if gt $replicas 1 }}
{{- range .Values.config.clients }}
{{- if and .limits (not $.Values.acknowledge.limitsPerReplica) }}
{{- $found = append $found (printf "config.clients[%s].limits hold in each replica by itself, so that %d of them allow %d times as much: set replicaCount: 1, or divide them by %d and set acknowledge.limitsPerReplica: true" .name $replicas $replicas $replicas) }}
{{- end }}
{{- end }}
{{- range $name, $canary := .Values.config.canaries }}
{{- if and (not (hasKey $canary "weight")) (not $.Values.acknowledge.canaryPerReplica) }}
{{- $found = append $found (printf "config.canaries.%s is judged by each of %d replicas for itself, and they need not agree: set replicaCount: 1, or a fixed weight, or acknowledge.canaryPerReplica: true" $name $replicas) }}
{{- end }}
{{- end }}
{{- end }}
{{- $found | toJson }}
{{- end }}

{{- define "serinus.refusals.around" -}}
{{- $found := list }}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- $found = append $found (printf "autoscaling.minReplicas is %v and maxReplicas %v: write at most as many" .minReplicas .maxReplicas) }}
{{- end }}
{{- if not (or .cpuPercent .inflightPerPod) }}
{{- $found = append $found "autoscaling goes by nothing: set cpuPercent or inflightPerPod" }}
{{- end }}
{{- if and .cpuPercent (not (dig "requests" "cpu" "" $.Values.resources)) }}
{{- $found = append $found "autoscaling.cpuPercent is a part of resources.requests.cpu, which is not there: write it, or set cpuPercent: 0" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.adminFrom) }}
{{- $found = append $found "serviceMonitor is enabled, and networkPolicy lets nobody reach the admin port: name Prometheus' namespace in networkPolicy.adminFrom" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- $found = append $found "ingress.hosts is empty: name the host under which callers come" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- $found = append $found "httpRoute.parentRefs is empty: name the gateway" }}
{{- end }}
{{- if and .Values.tls.clientCaKey (not .Values.tls.secretName) }}
{{- $found = append $found "tls.clientCaKey is a key of tls.secretName, which is empty: name the Secret" }}
{{- end }}
{{- $found | toJson }}
{{- end }}
