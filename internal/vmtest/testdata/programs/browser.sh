### vite with its page in Chromium
# The host's browser shows the page by a published port; the host's edits reach it (vite's own client) without a load by us.
# The page's title says what it shows, and how often it was loaded.
# where: host
# needs: chromium curl jq
mkdir -p app
echo '{"name": "app", "private": true, "type": "module", "scripts": {"dev": "vite"}, "devDependencies": {"vite": "7.3.8"}}' >app/package.json
cat >app/index.html <<'END'
<!doctype html>
<p id="p"></p>
<p>first</p>
<script type="module" src="/main.js"></script>
END
cat >app/main.js <<'END'
import "./style.css";
import { text } from "./text.js";
sessionStorage.loads = Number(sessionStorage.loads || 0) + 1;
const p = document.getElementById("p");
p.textContent = text;
import.meta.hot.accept("./text.js", (module) => { p.textContent = module.text; });
const seen = () => `${document.body.innerText.replace(/\s+/g, " ").trim()} ${getComputedStyle(p).color} load ${sessionStorage.loads}`;
setInterval(() => { document.title = seen(); }, 100);
END
echo '#p { color: rgb(1, 1, 1) }' >app/style.css
echo 'export const text = "edit 0";' >app/text.js
cd app
bawn run -n -- npm install --no-audit --no-fund --loglevel=error
bawn port "$PORT:5173"
serve() { bawn run -n -- npm run dev -- --strictPort >>../vite.log 2>&1 & server=$!; }
serve
eventually curl -fsS "http://localhost:$PORT/text.js"
profile=$(mktemp -d)
flags="--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-breakpad"
[ "$(id -u)" != 0 ] || flags+=" --no-sandbox" # Chromium's own has no use for root
chromium $flags --remote-debugging-port=0 --user-data-dir="$profile" "http://localhost:$PORT/" >../chromium.log 2>&1 &
browser=$!
trap 'kill $browser $server 2>/dev/null || true; wait || true; bawn port --remove $PORT; rm -rf "$profile"' EXIT
title() { curl -fsS "http://127.0.0.1:$(sed -n 1p "$profile/DevToolsActivePort")/json/list" | jq -r '.[] | select(.type == "page").title'; }
shows() { [ "$(title)" = "$1" ]; }
see() { eventually shows "$1" || { title; exit 1; }; }
see 'edit 0 first rgb(1, 1, 1) load 1'
echo 'export const text = "edit 1";' >text.js
see 'edit 1 first rgb(1, 1, 1) load 1'
echo 'export const text = "edit 2";' >.new && mv .new text.js # as editors save
see 'edit 2 first rgb(1, 1, 1) load 1'
sed -i 's/1, 1, 1/2, 2, 2/' style.css
see 'edit 2 first rgb(2, 2, 2) load 1'
sed -i 's/first/second/' index.html # vite loads the page again
see 'edit 2 second rgb(2, 2, 2) load 2'
kill $server
wait $server || true
echo 'export const text = "edit 3";' >text.js
serve # its client finds it again, and loads the page
see 'edit 3 second rgb(2, 2, 2) load 3'
