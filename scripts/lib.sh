# shellcheck shell=bash
# What scripts/test, scripts/demo and scripts/install share. Sourced, never run; expects `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" -eq 0 ] || fail 'must be run as root (network namespaces and iptables)'
}

# Node 20.20 or a later Node 20+, as package.json says.
need_node() {
  command -v node >/dev/null || fail 'Node.js 20.20 or later is needed: https://nodejs.org/'
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 20) ? 0 : 1)' ||
    fail "Node.js 20.20 or later is needed, found $(node --version)"
}

# `npm ci`, unless node_modules was made from this very lock file.
install_modules() {
  local stamp="$root/node_modules/.mesh-node-lock" wanted
  wanted=$(cd "$root" && cat package.json package-lock.json | sha256sum)
  if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return 0; fi
  (cd "$root" && npm ci --include=dev --include=optional --no-audit --no-fund --loglevel=error)
  printf '%s\n' "$wanted" >"$stamp"
}

# Builds the program, unless it was built from these very sources. What was built before is replaced at once: a program
# that starts meanwhile finds all of its files. One build at a time.
build_program() {
  (
    flock 9
    cd "$root" || exit 1
    local sources=(src package.json package-lock.json tsconfig.json rolldown.config.ts)
    if [ -e dist/main.js ] && [ -z "$(find "${sources[@]}" -newer dist/main.js -print -quit)" ]; then return 0; fi
    rm -rf dist.new dist.old
    # It lists every file that it writes; what is wrong goes to standard error.
    node_modules/.bin/rolldown -c rolldown.config.ts --dir dist.new >/dev/null || exit 1
    chmod +x dist.new/main.js
    [ ! -e dist ] || mv dist dist.old
    mv dist.new dist
    rm -rf dist.old
  ) 9>"$root/node_modules/.mesh-node-build"
}

# Builds what runs beside the program, into build/: the benchmark, the demo, and the programs that tests start.
build_tools() {
  (
    flock 9
    cd "$root" || exit 1
    local stamp=build/.built
    local sources=(src bench test package.json package-lock.json tsconfig.json tsconfig.tools.json)
    if [ -e "$stamp" ] && [ -z "$(find "${sources[@]}" -type f ! -name '*.test.ts' -newer "$stamp" -print -quit)" ]; then return 0; fi
    local begun
    begun=$(mktemp "$root/node_modules/.mesh-node-begun.XXXX")
    node_modules/.bin/tsc -p tsconfig.tools.json || exit 1
    mv "$begun" "$stamp"
  ) 9>"$root/node_modules/.mesh-node-build-tools"
}

# Prints the comment at the head of the running script, and ends it.
usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
  exit 2
}

# Runs a command and says so; with $dry_run = yes it only says so.
act() {
  printf '+ %s\n' "$*"
  [ "${dry_run:-no}" = yes ] || "$@"
}

# Writes standard input to a file, with a mode, in place by renaming.
write() {
  local file=$1 mode=$2
  printf '+ write %s\n' "$file"
  if [ "${dry_run:-no}" = yes ]; then
    cat >/dev/null
    return 0
  fi
  mkdir -p "$(dirname "$file")"
  cat >"$file.new"
  chmod "$mode" "$file.new"
  mv -f "$file.new" "$file"
}

# Puts the program that lies in directory $1 in place of the one in $2, by renaming: whoever starts it meets the old one or the
# new one, never half of one. A daemon that runs starts its workers from what it was started from until `mesh-node upgrade`,
# so that stays beside it ($2.old); what was put in place meanwhile, and what nobody runs, goes with the next one.
replace_program() {
  local fresh=$1 program=$2 skipped=$2.skipped
  if [ -e "$program" ] && ! in_use "$program" && in_use "$program.old"; then
    act mv "$program" "$skipped"
  elif [ -e "$program" ]; then
    act rm -rf "$program.old"
    act mv "$program" "$program.old"
  fi
  act mv "$fresh" "$program"
  act rm -rf "$skipped"
}

# True while a daemon runs the program in this directory, which it keeps open.
in_use() { [ -n "$(find /proc/[0-9]*/fd -maxdepth 1 -lname "$1" -print -quit 2>/dev/null)" ]; }
