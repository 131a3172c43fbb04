# Reads `pip install -v` and prints a line for each step: a package, or an object file that the compiler has finished.
/^ *(Collecting|Downloading .*MB\)|Building wheel|Created wheel|Installing collected|Successfully installed|ERROR)/ {
    line = $0
    sub(/ \(from .*/, "", line)
    sub(/: filename=.*/, "", line)
    if (length(line) > 110) line = substr(line, 1, 107) "..."
    if (line != last) print line
    last = line
    fflush()
    next
}
match($0, /\[[0-9]+\/[0-9]+\]/) {
    step = substr($0, RSTART, RLENGTH)
    name = "linking"
    if (match($0, / -c [^ ]+/)) {
        name = substr($0, RSTART + 4, RLENGTH - 4)
        sub(/.*[\/\\]/, "", name)
    }
    printf "  %s %s\n", step, name
    fflush()
}
