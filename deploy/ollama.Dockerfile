# Ollama with its model inside, for networks from which nothing can be fetched:
#   docker build -f deploy/ollama.Dockerfile --build-arg MODEL=llama3.2:3b -t doc-classify-ollama .
FROM ollama/ollama
ARG MODEL=llama3.2:3b
# Not the home of root, so that another user can read it; NOPRUNE: it is not to be written to.
ENV OLLAMA_MODELS=/models OLLAMA_NOPRUNE=1 HOME=/tmp
RUN ollama serve & \
    until ollama list >/dev/null 2>&1; do sleep 1; done; \
    ollama pull "${MODEL}" && chmod -R a+rX /models && rm -rf /tmp/.ollama
# An empty volume over it then has its rights also on Amazon ECS, see the other Dockerfile.
VOLUME ["/tmp"]
USER 10001:10001
