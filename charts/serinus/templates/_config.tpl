{{- /*
The configuration as Serinus reads it: `config`, and what follows from other values.

Helm reads values as YAML 1.1, where the `on` of `retry: {on: […]}` is a truth value and arrives as the name `true`.
Serinus reads YAML 1.2. So that one may write it as everywhere else, it gets its name back here.
*/}}
{{- define "serinus.config" -}}
{{- $config := deepCopy .Values.config }}
{{- range $name, $pool := $config.pools }}
{{- if and (kindIs "map" $pool.retry) (hasKey $pool.retry "true") }}
{{- $_ := set $pool.retry "on" (get $pool.retry "true") }}
{{- $_ := unset $pool.retry "true" }}
{{- end }}
{{- end }}
{{- $address := printf "%s:%v" .Values.listenHost .Values.ports.proxy }}
{{- $listener := dict "address" $address }}
{{- with .Values.tls }}
{{- if .secretName }}
{{- $folder := printf "/run/secrets/%s" .secretName }}
{{- $tls := dict "cert" (printf "%s/tls.crt" $folder) "key" (printf "%s/tls.key" $folder) }}
{{- if .clientCaKey }}{{ $_ := set $tls "client_ca" (printf "%s/%s" $folder .clientCaKey) }}{{ end }}
{{- $_ := set $listener "tls" $tls }}
{{- end }}
{{- end }}
{{- $_ := set $config "listen" (list $listener) }}
{{- $_ := set $config "admin" (merge (dict "listen" (printf "%s:%v" .Values.listenHost .Values.ports.admin)) ($config.admin | default dict)) }}
{{- $_ := set $config "state_dir" "/var/lib/serinus" }}
{{- toYaml $config }}
{{- end }}

{{- /* What of it is read only at the start: `need_restart` in docs/reload.md. Another sum restarts the pods. */}}
{{- define "serinus.atStart" -}}
{{- $config := include "serinus.config" . | fromYaml }}
{{- $workers := $config.workers | default 1 }}
{{- $log := $config.log | default dict }}
{{- $listen := ternary list $config.listen (eq (toString $workers) "1") }}
{{- dict "admin" $config.admin "state_dir" $config.state_dir "workers" $workers "format" ($log.format | default "json") "listen" $listen "tracing" $config.tracing | toJson | sha256sum }}
{{- end }}

{{- /* Seconds, of a duration as Serinus writes it. */}}
{{- define "serinus.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- mulf $number (get (dict "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}
{{- end }}

{{- /* What an end takes: until SIGTERM, pre_drain, drain_timeout, and 5 s to close, as docs/systemd.md has it. */}}
{{- define "serinus.grace" -}}
{{- $preDrain := include "serinus.seconds" (.Values.config.pre_drain | default "5s") | float64 }}
{{- $drain := include "serinus.seconds" (.Values.config.drain_timeout | default "30s") | float64 }}
{{- addf .Values.preStopSeconds $preDrain $drain 5 | ceil | int64 }}
{{- end }}

{{- /* The ports of all URLs in the configuration but web pages' origins, in JSON: what it calls is there, by whatever name. */}}
{{- define "serinus.calledPorts" -}}
{{- $ports := list }}
{{- range regexFindAll `"https?://[^"\\]+` (omit .Values.config "cors" | toJson) -1 }}
{{- $url := trimPrefix "\"" . | urlParse }}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $ports = append $ports (int ($named | default (ternary "80" "443" (eq $url.scheme "http")))) }}
{{- end }}
{{- dict "ports" (uniq $ports) | toJson }}
{{- end }}
