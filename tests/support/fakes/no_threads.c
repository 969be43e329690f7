/* Lets a process start no thread, as on a machine that has reached its limit of processes. */
#include <errno.h>
#include <pthread.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*begin)(void *), void *argument)
{
    (void)thread, (void)attributes, (void)begin, (void)argument;
    return EAGAIN;
}
