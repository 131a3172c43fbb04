# Reads `pip install -v` and prints a line for each step: a package, or an object file that the compiler has finished.
/^ *(Collecting|Downloading|Building wheel|Created wheel|Installing build dependencies|Installing collected|Successfully installed|ERROR)/ {
    line = substr($0, 1, 160)
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
