#!/usr/bin/env bash
# Builds the images and tries what each is for: the train image trains CartPole, the serve image answers for that policy and
# for a rule, the operate image runs a rule on the twin; all as an ordinary user with a read-only file system. Needs Docker or
# Podman; docs/images.md has more.
#
#   docker/check.sh [train] [serve] [operate]       all by default; `serve` alone tries the rule
#
#   SCALEPILOT_CONTAINER_TOOL   docker or podman (default: the first that works)
#   SCALEPILOT_BUILD_FLAGS      more flags for every build, split at spaces: --build-arg TORCH=cuda, --no-cache …
#   SCALEPILOT_RUN_FLAGS        more flags for every run: --network host …
#   SCALEPILOT_TAG              of the images (default: 0.1.0, as the manifests in cluster/ want it)
#
# The images stay; containers and volumes, named after this process, do not. Exit code 1: a check failed; 2: it could not begin.
# No `-u`: the bash of macOS takes an empty array for an unset one.
set -eo pipefail
cd "$(dirname "$0")/.."

readonly MOST_SERVE_MB=900 MOST_OPERATE_MB=200 MOST_TRAIN_CPU_MB=2000 READY_SECONDS=120 ENV_STEPS=20000
readonly OURS="scalepilot-check-$$"
readonly TAG=${SCALEPILOT_TAG:-0.1.0}
read -ra build_flags <<<"${SCALEPILOT_BUILD_FLAGS:-}"
read -ra run_flags <<<"${SCALEPILOT_RUN_FLAGS:-}"
# What docs/images.md tells people to add, so that it is known to work.
readonly CONTAINED=(--read-only --tmpfs "/tmp:exec,mode=1777" --cap-drop ALL --security-opt no-new-privileges)

ok() { printf 'ok    %s\n' "$*"; }
fail() { printf 'FAIL  %s\n' "$*" >&2; exit 1; }

find_tool() {
  local tool
  for tool in ${SCALEPILOT_CONTAINER_TOOL:-docker podman}; do
    if "$tool" info >/dev/null 2>&1; then echo "$tool"; return; fi
  done
  echo "SCALEPILOT_CONTAINER_TOOL: neither docker nor podman works here ('docker info' or 'podman info' says why)" >&2
  exit 2
}

clean() {
  "$tool" rm --force --volumes "$OURS" >/dev/null 2>&1 || true
  "$tool" volume rm --force "$OURS-runs" "$OURS-policies" "$OURS-keys" >/dev/null 2>&1 || true
}

# One command in a new container: run_in IMAGE [FLAGS] -- COMMAND
run_in() {
  local image=$1 flags=()
  shift
  while [ "$1" != -- ]; do flags+=("$1"); shift; done
  shift
  "$tool" run --rm "${CONTAINED[@]}" "${run_flags[@]}" "${flags[@]}" "$image:$TAG" "$@"
}

build() {
  local name=$1 format=()
  # Podman's own format has no HEALTHCHECK.
  if "$tool" --version | grep -qi podman; then format=(--format docker); fi
  "$tool" build "${format[@]}" "${build_flags[@]}" -f "docker/$name.Dockerfile" -t "scalepilot-$name:$TAG" .
}

check_size() {
  local name=$1 most_mb=$2 image="scalepilot-$1:$TAG" mb
  mb=$(($("$tool" image inspect --format '{{.Size}}' "$image") / 1000000))
  if [ -n "$most_mb" ] && [ "$mb" -gt "$most_mb" ]; then fail "$name: $mb MB; allowed: at most $most_mb"; fi
  ok "$name: $mb MB${most_mb:+ of $most_mb}"
}

check_image() {
  local name=$1 user
  check_size "$@"
  user=$(run_in "scalepilot-$name" -- id -u)
  [ "$user" = 1000 ] || fail "$name: runs as user $user; allowed: 1000"
  # shellcheck disable=SC2016 # for the shell in there
  run_in "scalepilot-$name" -- sh -c \
    '! command -v gcc && ! command -v pip && test -z "$(find /opt/scalepilot ! -type l \( -user 1000 -o -perm -o=w \))"' \
    || fail "$name: has a compiler or pip, or may change its own code"
  ok "$name: runs as user 1000, without compiler or pip, and cannot change its own code"
  run_in "scalepilot-$name" -- scalepilot --version | grep -q '^scalepilot ' || fail "$name: scalepilot --version"
  run_in "scalepilot-$name" -- ray --version >/dev/null || fail "$name: ray --version"
}

check_train() {
  local most_mb=$MOST_TRAIN_CPU_MB
  # A CUDA build is several times larger.
  case " ${build_flags[*]} " in *TORCH=cuda*) most_mb="" ;; esac
  check_image train "$most_mb"
  # Ray leaves a token of its own in the home folder.
  run_in scalepilot-train --tmpfs /home/scalepilot/.ray:mode=1777 -v "$OURS-runs:/home/scalepilot/runs" -- \
    scalepilot train tune_configs/cartpole-ppo.yaml --set "ppo.total_env_steps=$ENV_STEPS" --set evaluation.test_episodes=20
  trained=yes
  ok "train: trained CartPole for $ENV_STEPS steps"
}

make_rule_and_key() {
  run_in scalepilot-serve -v "$OURS-policies:/policies" -- python -c '
from pathlib import Path

from scalepilot.policy import save_policy
from scalepilot.policy.rules import make_rule
from scalepilot_envs.autoscale import AutoscaleParams

save_policy(make_rule("hpa", AutoscaleParams(), {"target": 0.6}, name="shop"), Path("/policies/shop"))'
  # A volume mounted first at /policies is owned by the image's user, as that folder is, whoever runs this.
  run_in scalepilot-serve -v "$OURS-keys:/policies" -- \
    sh -c 'umask 077 && head -c 24 /dev/urandom | base64 | tr -d +/ > /policies/api_keys'
}

wait_until_ready() {
  local seconds
  for ((seconds = 0; seconds < READY_SECONDS; seconds++)); do
    if "$tool" exec "$OURS" wget -q -O /dev/null http://127.0.0.1:8000/health/ready; then return; fi
    [ "$("$tool" inspect --format '{{.State.Running}}' "$OURS")" = true ] || break
    sleep 1
  done
  "$tool" logs "$OURS" >&2
  fail "serve: not ready after $seconds s"
}

check_serve() {
  check_image serve "$MOST_SERVE_MB"
  run_in scalepilot-serve -- python -c '
from importlib.util import find_spec
from scalepilot.serve.ingress.ingress import haproxy_binary

assert haproxy_binary() is not None and not any(find_spec(name) for name in ("torch", "onnxscript", "stable_baselines3"))' \
    || fail "serve: has torch, or no HAProxy"
  ok "serve: no torch; HAProxy is there"
  make_rule_and_key
  if [ -n "$trained" ]; then
    run_in scalepilot-serve -v "$OURS-runs:/runs:ro" -v "$OURS-policies:/policies" -- \
      sh -c 'cp -r /runs/cartpole/*/policy /policies/cartpole' || fail "train: left no policy"
  fi
  "$tool" run --detach --name "$OURS" "${CONTAINED[@]}" "${run_flags[@]}" -v "$OURS-policies:/policies:ro" \
    -v "$OURS-keys:/run/secrets:ro" "scalepilot-serve:$TAG" >/dev/null
  wait_until_ready
  "$tool" exec -i "$OURS" python - <docker/ask.py || { "$tool" logs "$OURS" >&2; fail "serve: wrong answers"; }
  ok "serve: answers with a key, refuses without"
  "$tool" stop --time 60 "$OURS" >/dev/null
  local code
  code=$("$tool" inspect --format '{{.State.ExitCode}}' "$OURS")
  [ "$code" = 0 ] || { "$tool" logs "$OURS" >&2; fail "serve: exit code $code after SIGTERM; allowed: 0"; }
  "$tool" rm --force --volumes "$OURS" >/dev/null
  ok "serve: drained and ended with exit code 0 at SIGTERM"
}

# There is no shell in it.
check_operate() {
  check_size operate "$MOST_OPERATE_MB"
  run_in scalepilot-operate -- python3 -c '
import os
from importlib.util import find_spec
from pathlib import Path

assert os.getuid() == 1000, os.getuid()
assert not [name for name in ("ray", "torch", "pip") if find_spec(name)]
assert not [path for path in ("/bin/sh", "/usr/bin/sh", "/usr/bin/apt", "/usr/bin/perl") if os.path.exists(path)]
assert not [p for folder in ("/opt", "/usr") for p in Path(folder).rglob("*") if not p.is_symlink() and os.access(p, os.W_OK)]' \
    || fail "operate: has Ray, torch, pip or a shell, or may change its own code"
  ok "operate: runs as user 1000, without Ray, torch, pip or a shell, and cannot change its own code"
  run_in scalepilot-operate -- scalepilot operate hpa:target=0.6 --twin --minutes 0.2 --records /tmp/records \
    || fail "operate: does not run a rule on the twin"
  "$tool" run --detach --name "$OURS" "${CONTAINED[@]}" "${run_flags[@]}" "scalepilot-operate:$TAG" \
    scalepilot operate hpa:target=0.6 --twin --minutes 10 --records /tmp/records >/dev/null
  local seconds code
  for ((seconds = 0; seconds < READY_SECONDS; seconds++)); do
    if "$tool" exec "$OURS" python3 -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:9464/", timeout=4)' 2>/dev/null; then break; fi
    sleep 1
  done
  ok "operate: its page answers after $seconds s"
  "$tool" stop --time 30 "$OURS" >/dev/null
  code=$("$tool" inspect --format '{{.State.ExitCode}}' "$OURS")
  [ "$code" = 0 ] || { "$tool" logs "$OURS" >&2; fail "operate: exit code $code after SIGTERM; allowed: 0"; }
  "$tool" rm --force --volumes "$OURS" >/dev/null
  ok "operate: ended with exit code 0 at SIGTERM"
}

images=("$@")
[ ${#images[@]} -gt 0 ] || images=(train serve operate)
for image in "${images[@]}"; do
  case $image in
    train | serve | operate) ;;
    *) echo "image: '$image' is not allowed; allowed: train, serve, operate" >&2; exit 2 ;;
  esac
done
tool=$(find_tool)
trained=""
trap clean EXIT
for image in "${images[@]}"; do build "$image"; done
for image in "${images[@]}"; do "check_$image"; done
