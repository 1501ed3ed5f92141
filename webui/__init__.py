"""The web page over the engine. Start reading at `page`: it says which event calls which handler.

components/   what a visitor sees: the three steps video, plan and edit
events/       what happens when a visitor does something: one handler method per event
outputs       which components an event changes, in which order
views         HTML and gallery items made from plans, jobs and scores
studio        plans, edits and models behind the handlers
jobs/         the queue, and the tasks it runs in a thread or on ZeroGPU
serving/      the server, its log, and the deletion of old files
limits, messages, served_images, theme    limits for visitors, messages to them, image files, looks
"""
