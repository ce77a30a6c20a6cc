#include <stdio.h>
#include <unistd.h>

int main(void)
{
	char name[256];

	if (gethostname(name, sizeof name) != 0)
		return 1;
	printf("hello from %s\n", name);
	return 0;
}
