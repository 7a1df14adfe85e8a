# Ollama with its model inside: on AWS nothing can be fetched from the internet.
#   docker build -f deploy/aws/ollama.Dockerfile --build-arg MODEL=llama3.2:3b -t doc-classify-ollama .
FROM ollama/ollama
ARG MODEL=llama3.2:3b
RUN ollama serve & \
    until ollama list >/dev/null 2>&1; do sleep 1; done; \
    ollama pull "${MODEL}"
