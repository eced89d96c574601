# What unattended-rules takes of the files that the agent left. Variables: kind, "rules" or "sets"; name of the file; virtual, the
# network of virtual addresses, or "off".
#
# rules   All of them, if each is one that the daemon writes, word by word: no other option (`--modprobe=` would run a program),
#         no name in place of an address (it would be looked up), no other target. Those that lead other addresses
#         than virtual ones elsewhere are left out (exit code 2).
# sets    Those of which the lines before "=plan", what `ipset list -n` says, know nothing.

# The number of 16-bit groups of an address, 2 or 8, and the groups in g; 0 for what is no address.
function groups(text, g,    part, n, i, count, zeros) {
  if (text ~ /^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$/) {
    split(text, part, ".")
    for (i = 1; i <= 4; i++) if (length(part[i]) > 3 || part[i] > 255 || part[i] ~ /^0./) return 0
    g[1] = part[1] * 256 + part[2]
    g[2] = part[3] * 256 + part[4]
    return 2
  }
  if (text !~ /^[0-9a-f:]+$/ || text !~ /:/ || text ~ /:::|::.*::|^:[^:]|[^:]:$/) return 0
  sub(/^::/, "0::", text)
  sub(/::$/, "::0", text)
  n = split(text, part, ":")
  if (n > 9 || (text !~ /::/ && n != 8)) return 0
  for (i = 1; i <= n; i++) {
    if (length(part[i]) > 4) return 0
    if (part[i] != "") g[++count] = hex(part[i])
    else for (zeros = 9 - n; zeros > 0; zeros--) g[++count] = 0
  }
  return count == 8 ? 8 : 0
}

function hex(text,    i, number) {
  for (i = 1; i <= length(text); i++) number = number * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
  return number
}

# Reads an address or network: groups in g; size is the number of its bits, width of those that count. False for anything else.
function network(text, g,    slash, n) {
  slash = index(text, "/")
  n = groups(slash ? substr(text, 1, slash - 1) : text, g)
  size = n * 16
  width = slash ? substr(text, slash + 1) : size
  return n > 0 && width ~ /^[0-9]+$/ && (width += 0) <= size
}

function inside(text, outer,    a, b, i, step, inner_size, inner_width) {
  if (!network(text, a)) return 0
  inner_size = size
  inner_width = width
  if (!network(outer, b) || size != inner_size || inner_width < width) return 0
  for (i = 1; width > 0; i++) {
    step = width >= 16 ? 1 : 2 ^ (16 - width)
    if (int(a[i] / step) != int(b[i] / step)) return 0
    width -= 16
  }
  return 1
}

function bad() {
  printf "mesh-node: %s:%d: not a line that the agent writes: %s\n", name, NR, substr($0, 1, 100) >"/dev/stderr"
  failed = 1
  exit
}

BEGIN {
  ours = "^MESH_[A-Z0-9_]+$"
  mark = "0x[123]0000000"
  number = "^[0-9]+$"
  value["-p"] = "^(tcp|udp|icmp|ipv6-icmp)$"
  value["-m"] = "^(tcp|udp|owner|set|mark|connmark|addrtype|conntrack|statistic)$"
  value["-i"] = value["-o"] = "^[A-Za-z0-9_.][A-Za-z0-9_.-]*$"
  value["--dport"] = "^[0-9]+(:[0-9]+)?$"
  value["--uid-owner"] = value["--every"] = value["--packet"] = value["--to-ports"] = number
  value["--mark"] = value["--set-xmark"] = "^" mark "/" mark "$"
  value["--nfmask"] = value["--ctmask"] = "^" mark "$"
  value["--src-type"] = value["--dst-type"] = "^LOCAL$"
  value["--ctstate"] = "^(NEW|DNAT)$"
  value["--ctdir"] = "^REPLY$"
  value["--mode"] = "^nth$"
  value["--match-set"] = ours
  value["--reject-with"] = "^(tcp-reset|icmp-port-unreachable|icmp6-port-unreachable)$"
  value["--to-destination"] = "^[][0-9a-f:.]+$"
  value["-g"] = ours
  value["-j"] = "^(RETURN|REJECT|DROP|MARK|CONNMARK|DNAT|REDIRECT|MASQUERADE|MESH_[A-Z0-9_]+)$"
  alone["--syn"] = alone["--restore-mark"] = 1
  address["-d"] = address["--ctorigdst"] = 1
}

kind == "sets" && /^=plan$/ { planned = 1; next }
kind == "sets" && !planned { there[$1] = 1; next }
kind == "sets" {
  if ($2 !~ ours || $2 in there) next
  if (/^create [A-Z0-9_]+ (hash:ip,port family inet6? hashsize [0-9]+ maxelem [0-9]+|bitmap:port range 0-65535)$/) print
  if (/^add [A-Z0-9_]+ [0-9]+$/) print
  if (/^add [A-Z0-9_]+ [0-9a-f:.]+,tcp:[0-9]+$/ && groups(substr($3, 1, index($3, ",") - 1), g)) print
  next
}

NR == 1 && !/^# backend (nft|legacy|plain)$/ { bad() }
NR == 1 { line[++count] = $0; next }
ended { bad() }
/^# end$/ { ended = 1; next }
/^\*(raw|mangle|nat|filter|security)$/ || /^COMMIT$/ { line[++count] = $0; next }
/^:MESH_[A-Z0-9_]+ - \[0:0\]$/ || /^-I [A-Z]+ [0-9]+ -j MESH_[A-Z0-9_]+$/ { line[++count] = $0; next }
!/^-A MESH_[A-Z0-9_]+ / { bad() }
{
  led = within = negated = 0
  for (i = 3; i <= NF; i++) {
    option = $i
    if (option == "!") { negated = 1; continue }
    if (option in alone) { negated = 0; continue }
    word = $(++i)
    if (option in address) {
      if (!network(tolower(word), g)) bad()
      if (option == "-d" && !negated && inside(tolower(word), tolower(virtual))) within = 1
    } else if (!(option in value) || word !~ value[option]) bad()
    if (option == "--match-set" && $(++i) !~ /^dst(,dst)?$/) bad()
    if (option == "-j" && (word == "DNAT" || word == "REDIRECT")) led = 1
    negated = 0
  }
  if (led && !within) left++
  else line[++count] = $0
}

END {
  if (kind == "sets") exit
  if (!failed && !ended) printf "mesh-node: %s: not written to its end\n", name >"/dev/stderr"
  if (failed || !ended) exit 1
  for (i = 1; i <= count; i++) print line[i]
  if (left) {
    printf "mesh-node: %s: left out %d rules that lead other addresses than virtual ones elsewhere\n", name, left >"/dev/stderr"
    exit 2
  }
}
