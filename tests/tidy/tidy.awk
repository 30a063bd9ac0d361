# tidy.awk - see run.sh. Reads every source once; knows nothing of C beyond this layout:
# a function's opening brace stands alone in column 1, its closing brace too.

function report(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; findings++ }

function load_rules(    line, parts, count) {
    while ((getline line < rules) > 0) {
        if (line ~ /^#/ || line !~ /:/) continue
        count = split(line, parts, / *: */)
        sub(/ +$/, "", parts[1])
        allowed[parts[1]] = " " parts[2] " "
        banned[parts[1]] = count > 2 ? " " parts[3] " " : ""
    }
    while ((getline line < ratchet) > 0) {
        if (line ~ /^#/ || line == "") continue
        split(line, parts, " ")
        permitted[parts[1] " " parts[2]] = parts[3]
    }
}

function folder_of(path,    best, folder) {
    best = ""
    for (folder in allowed)
        if (index(path, folder "/") == 1 && length(folder) > length(best)) best = folder
    return best
}

function check_include(path,    words, count, i, ok) {
    if ($0 ~ /^#include </) {
        path = $2; gsub(/[<>]/, "", path)
        if (room != "" && index(banned[room], " " path " "))
            report("'" room "' may not include <" path ">")
        return
    }
    path = $2; gsub(/"/, "", path)
    if (room == "" || path !~ /\//) {
        if (path !~ /\//) report("include \"" path "\" is not written from the repository root")
        return
    }
    count = split(allowed[room], words, " ")
    ok = 0
    for (i = 1; i <= count; i++)
        if (index(path, (words[i] == "own" ? room : words[i]) "/") == 1) ok = 1
    if (!ok) report("'" room "' may not include \"" path "\"")
}

function end_function(    length_lines, key) {
    length_lines = FNR - opened + 1
    key = FILENAME " " name
    if (length_lines > 70 && FILENAME !~ /^tests\// && length_lines > permitted[key] + 0)
        report("function '" name "' has " length_lines " lines, at most " \
               (permitted[key] ? permitted[key] : 70) " (tests/tidy/long-functions.txt)")
}

BEGIN { load_rules() }

FNR == 1 {
    room = folder_of(FILENAME)
    files++
    if ($0 !~ /^\/\*/) report("first line does not say the file's role")
    candidate = ""; inside = 0
}

/^#include / { check_include() }

/^[a-zA-Z].*\(/ && !inside { candidate = $0; sub(/\(.*/, "", candidate); sub(/.*[ *]/, "", candidate) }
/^\{/ && !inside { inside = 1; opened = FNR; name = candidate }
/^\}/ && inside { end_function(); inside = 0 }

{ code = $0; sub(/\/\*.*/, "", code); gsub(/"([^"\\]|\\.)*"/, "\"\"", code) }
code ~ /(^|[^a-z_>.])(strcpy|strcat|sprintf|gets|strtok|alloca|setjmp|longjmp|system|popen)\(/ {
    report("banned call: " $0)
}
code ~ /(^|[^a-z_>.])(exit|_exit|abort)\(/ && FILENAME !~ /(^tests\/|main\.c$|err\.c$|worker\/shepherd\/|launch|nursery|hook|attempt\/shm\.c|daemon\/init\.c)/ {
    report("only main may end the process: " $0)
}
/PQexec|PQsend|PQconnect/ && FILENAME !~ /^(coordinator\/store|tests)\// { report("libpq outside the store") }
/"(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE) / && FILENAME !~ /^(coordinator\/store|tests|client)\// {
    report("SQL outside store/ and migrations/")
}
/(TODO|FIXME|XXX)/ && $0 !~ /mkstemp|mkdtemp|-?XXXXXX/ { report("unfinished work: " $0) }
length($0) > 100 && FILENAME !~ /^tests\/golden\// { report("line of " length($0) " characters, at most 100") }
END {
    printf "tidy: %d files, %d findings\n", files, findings
    exit findings > 0
}
