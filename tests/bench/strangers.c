/*
 * tests/bench/strangers.c - connects to a broker again and again, as somebody who has no business there:
 *
 *	strangers PORT CERT KEY SECONDS THREADS
 *
 * Each connection is a whole TLS handshake with that certificate and a CONNECT; then it waits for the end.
 * Prints how many there were and how many got a CONNACK with code 0 (none is wanted).
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/ssl.h>

#define THREADS_MAX 64

static struct {
	SSL_CTX *tls;
	struct sockaddr_in address;
	time_t end_s;
	atomic_ulong connects, let_in;
} G;

static time_t
now_s(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void
connect_once(void)
{
	static const unsigned char CONNECT[] = "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01s";
	unsigned char answer[4] = { 0 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	SSL *ssl = SSL_new(G.tls);

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (ssl != NULL && connect(fd, (struct sockaddr *)&G.address, sizeof(G.address)) == 0 &&
		SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1 &&
		SSL_write(ssl, CONNECT, sizeof(CONNECT) - 1) > 0 &&
		SSL_read(ssl, answer, sizeof(answer)) == 4 && answer[0] == 0x20 && answer[3] == 0)
		atomic_fetch_add(&G.let_in, 1);
	atomic_fetch_add(&G.connects, 1);
	SSL_free(ssl);
	(void)close(fd);
}

static void *
run(void *arg)
{
	(void)arg;
	while (now_s() < G.end_s)
		connect_once();
	return NULL;
}

int
main(int argc, char **argv)
{
	pthread_t threads[THREADS_MAX];
	size_t count = 0;

	if (argc != 6)
		return 2;
	G.tls = SSL_CTX_new(TLS_client_method());
	if (G.tls == NULL || SSL_CTX_use_certificate_chain_file(G.tls, argv[2]) != 1 ||
		SSL_CTX_use_PrivateKey_file(G.tls, argv[3], SSL_FILETYPE_PEM) != 1)
		return 1;
	G.address = (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	G.end_s = now_s() + strtol(argv[4], NULL, 10);
	while (count < THREADS_MAX && count < strtoul(argv[5], NULL, 10) &&
		pthread_create(&threads[count], NULL, run, NULL) == 0)
		count++;
	for (size_t i = 0; i < count; i++)
		(void)pthread_join(threads[i], NULL);
	printf("%lu %lu\n", atomic_load(&G.connects), atomic_load(&G.let_in));
	return 0;
}
