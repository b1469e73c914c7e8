#!/bin/sh
# The menu of a restaurant in one line: ./lunch.sh bikupan
curl -sf "${LUNCH_URL:-http://127.0.0.1:8080}/restaurant/${1:-bikupan}" | python3 -c 'import json, sys; r = json.load(sys.stdin)["restaurant"]; print(r["title"], *([d["dish_en"] for d in r["menu"]] or ["No menu published for today"]), sep="\n- ")'
