#!/bin/sh
# Install the shipped expert and ask the shipped sample database three questions. Needs expert-cli and its python on PATH.
set -eu
sample=$(python -c "from expert_cli import paths; print(paths.packaged('sample') / 'shop.sqlite')")

expert-cli install sql
while read -r question; do
    printf '\n> %s\n' "$question"
    expert-cli chat --experts sql --db "$sample" --limit 10 --prompt "$question" </dev/null
done <<QUESTIONS
How many customers are there?
What are the names of the products with a price above 100?
How many customers are there in each city?
QUESTIONS
printf '\nAsk more:\n  expert-cli chat --experts sql --db %s\n' "$sample"
