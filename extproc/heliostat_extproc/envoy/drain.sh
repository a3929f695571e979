# Ends Envoy's work before it is stopped: it turns unready, asks clients to leave, and waits until no
# request is open. Run as `bash drain.sh [SECONDS [QUIET_SECONDS]]`: the longest wait, and how long
# there must be no request before it ends. Status 1: requests are still open.
# Needs bash alone of Envoy's image, beside sleep.

limit=${1:-$default_limit}
quiet_needed=${2:-5}

# ask METHOD PATH: prints the answer of Envoy's admin interface; fails if that is not 200.
ask() {
  local answer=
  {
    printf '%s %s HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n' "$1" "$2" >&3
    IFS= read -r -d '' -t 5 answer <&3
  } 3<>"/dev/tcp/127.0.0.1/$admin_port" || [[ -n $answer ]] || return 1
  printf '%s' "$answer"
  [[ $answer == 'HTTP/1.1 200 '* ]]
} 2>/dev/null

# count STAT ANSWER: prints its value; 0 where Envoy has no such statistic.
count() {
  [[ $2 =~ (^|[[:space:]])${1//./[.]}:\ ([0-9]+) ]] && printf '%s' "${BASH_REMATCH[2]}" || printf 0
}

# State streams of other gateways never end by themselves, and are no requests.
open_requests() {
  local answer stat open=0 filter
  filter=$(IFS='|' && printf '%s' "${request_stats[*]}|$state_streams_stat")
  answer=$(ask GET "/stats?filter=^($filter)\$") || return 1
  [[ $answer == *"${request_stats[0]}: "* ]] || return 1
  for stat in "${request_stats[@]}"; do
    ((open += $(count "$stat" "$answer")))
  done
  ((open -= $(count "$state_streams_stat" "$answer")))
  printf '%s' "$((open > 0 ? open : 0))"
}

give_up() {
  echo "drain.sh: $1" >&2
  exit 1
}

told=
open=unknown
quiet=0
unheard=0
while :; do
  if [[ -z $told ]]; then
    # From the first on Envoy is unready and every answer closes its connection; the second closes
    # the listeners for others once Envoy's own --drain-time-s is over; what a peer has not served
    # still comes back by those within the pod.
    ask POST /healthcheck/fail >/dev/null && ask POST '/drain_listeners?graceful&inboundonly' >/dev/null && told=1
  fi
  if open=$(open_requests); then
    unheard=0
  else
    open=unknown
    ((++unheard < 5)) || give_up "Envoy's admin interface on port $admin_port does not answer"
  fi
  if [[ $told && $open == 0 ]]; then
    ((quiet += 1))
  else
    quiet=0
  fi
  ((quiet > quiet_needed || SECONDS >= limit)) && break
  sleep 1
done
[[ $open == 0 ]] || give_up "after $limit s requests are still open: $open"
