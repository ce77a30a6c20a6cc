# Use a small image in all ways.
set -eu
cd "$(dirname "$0")"
. ./tiny.sh
docker run --rm tiny /bin/sh -c 'echo in a container'
docker run --rm -v "$PWD:/work" tiny /bin/sh -c 'read -r l </work/from-host; echo "read: $l"; echo "container file" >/work/from-container'
docker run --rm --read-only --user 1000:1000 -e EXAMPLE_KEY -v "$PWD:/work:ro" tiny /bin/python3 /work/ask.py
docker build -q --build-arg "EXAMPLE_KEY=$EXAMPLE_KEY" -t built . >/dev/null
id=$(docker run -d built /bin/sh -c 'cat /built; echo "certificates: $SSL_CERT_FILE"')
docker wait "$id" >/dev/null
docker logs "$id"
docker commit "$id" committed >/dev/null
docker image inspect built committed | grep bawn-ca || echo nothing of bawn in the configurations
docker export "$id" | tar -t | grep bawn-ca || echo nothing of bawn in the files
docker rm "$id" >/dev/null
docker buildx version >/dev/null
docker compose up -d 2>&1
until docker compose logs client 2>/dev/null | grep -q 'answer:'; do
	sleep 0.2
	docker compose ps -a >/dev/null
done
docker compose logs --no-log-prefix client
docker compose exec -T server /bin/sh -c 'cat "$SSL_CERT_FILE" >/dev/null && echo "docker exec: $SSL_CERT_FILE"'
