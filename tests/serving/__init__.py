"""Servers on a target while builds go live: nginx, php-fpm, Node, each as docs/serving.md says.

daemons     start and stop a server with its own folder, configuration and port
recipes     the configurations of docs/serving.md, for a target of a test
visits      one request, byte by byte
load        requests without a pause, in processes of their own; each answer is judged
timeline    what may be live at this moment: the tests write it, the load reads it
pages       builds whose pages say which build they are of
"""
